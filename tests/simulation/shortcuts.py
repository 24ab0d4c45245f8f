"""What takes time in a run and is not what it tries: held by tests of its own, and done the short way here.

Of a checkpoint's files the bytes are a name, and what they stand for stays in memory (the files:
`tests/unit/test_checkpoint_files.py`). A record is decoded once, whoever reads it. What workers log is dropped.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from consumers.sink import batch
from schemas import envelope
from schemas.envelope import Message, StoredRecord
from schemas.events.base import Event
from streams.checkpoint import store
from streams.checkpoint.files import Rest, memory_file
from streams.gallery.exact import VectorRows
from streams.gallery.segment import IndexQuality, Segment
from streams.gallery.without_vector import WithoutVector
from streams.matcher import partition
from streams.matching import match
from tests.simulation import parts, processes

Files = Mapping[str, BinaryIO]


@contextmanager
def shortcuts() -> Iterator[None]:
    """Taken within it."""
    files, decoded = _Files(), _Decoded()
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    with ExitStack() as stack:
        for module in (batch, partition, match, parts):
            stack.enter_context(patch.object(module, "decode", decoded))
        for name in ("segment", "rest", "absent"):
            stack.enter_context(patch.object(store, f"pack_{name}", files.pack))
            stack.enter_context(patch.object(store, f"unpack_{name}", getattr(files, f"unpack_{name}")))
        stack.enter_context(patch.object(processes, "pack_segment", files.pack))
        try:
            yield
        finally:
            logging.disable(before)


class _Decoded:
    """`decode`, which remembers: records and messages never change."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[StoredRecord, Message[Event]]] = {}  # the record too, so that its id is no other's

    def __call__(self, record: StoredRecord, _topic: object = None) -> Message[Event]:
        known = self._known.get(id(record))
        if known is None:
            known = self._known[id(record)] = record, envelope.decode(record)
        return known[1]


class _Files:
    """See `streams.checkpoint.files`."""

    def __init__(self) -> None:
        self._kept: list[Any] = []

    def pack(self, content: Segment | Rest | WithoutVector) -> dict[str, BinaryIO]:
        """One file, whatever it is."""
        file = memory_file()
        file.write(str(len(self._kept)).encode())
        file.flush()
        self._kept.append(_copy(content) if isinstance(content, Rest) else content)
        return {"file": file}

    def unpack_segment(self, files: Files, quality: IndexQuality) -> Segment:
        """Without masked rows."""
        kept: Segment = self._content(files)
        return Segment(kept.id_table, kept.ids, kept.shared, kept.index, quality)

    def unpack_rest(self, files: Files) -> Rest:
        """A copy: a gallery changes it."""
        return _copy(self._content(files))

    def unpack_absent(self, files: Files) -> WithoutVector:
        """Another one, of the same arrays."""
        kept: WithoutVector = self._content(files)
        return WithoutVector(kept.id_table, kept.erased)

    def _content(self, files: Files) -> Any:
        files["file"].seek(0)
        return self._kept[int(files["file"].read())]


def _copy(rest: Rest) -> Rest:
    rows = rest.rows
    vectors: NDArray[np.float32] = rows.vectors.copy()
    copied = VectorRows(vectors, list(rows.ids), rows.revisions.copy(), rows.offsets.copy())
    return Rest(copied, [mask.copy() for mask in rest.alive])
