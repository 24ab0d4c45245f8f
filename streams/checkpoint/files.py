"""What is sealed, as files in memory, and back: arrays in numpy's format, indexes in hnswlib's."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import hnswlib
import numpy as np
from numpy.typing import NDArray

from schemas.events.encodings import EMBEDDING_DIMENSIONS
from streams.gallery.absent import Absent
from streams.gallery.exact import Rows
from streams.gallery.id_table import Roster
from streams.gallery.identical import Bearers
from streams.gallery.segment import Ids, Quality, Segment

Parts = Mapping[str, BinaryIO]


def memory_file() -> BinaryIO:
    """A file in memory, gone when it is closed. hnswlib reads and writes files only."""
    return os.fdopen(os.memfd_create("facematch"), "w+b")


def pack_segment(segment: Segment) -> dict[str, BinaryIO]:
    """A segment, but for what is masked."""
    roster, index = memory_file(), memory_file()
    _write(
        roster,
        *_arrays(segment.roster),
        segment.ids.text,
        segment.ids.ends,
        segment.bearers.rows,
        segment.bearers.begins,
    )
    segment.index.save_index(_path(index))
    return {"roster": roster, "index": index}


def unpack_segment(parts: Parts, quality: Quality) -> Segment:
    """A segment with nothing masked."""
    hashes, revisions, offsets, text, ends, rows, begins = _read(parts["roster"])
    index = hnswlib.Index(space="l2", dim=EMBEDDING_DIMENSIONS)
    index.load_index(_path(parts["index"]))
    return Segment(Roster(hashes, revisions, offsets), Ids(text, ends), Bearers(rows, begins), index, quality)


def pack_absent(absent: Absent) -> dict[str, BinaryIO]:
    """Individuals without a vector."""
    file = memory_file()
    _write(file, *_arrays(absent.roster), absent.erased)
    return {"absent": file}


def unpack_absent(parts: Parts) -> Absent:
    """See `pack_absent`."""
    hashes, revisions, offsets, erased = _read(parts["absent"])
    return Absent(Roster(hashes, revisions, offsets), erased)


@dataclass(frozen=True, slots=True)
class Rest:
    """What a scope has beside its segments: the rows of its delta, and which rows of each segment are living."""

    rows: Rows
    alive: list[NDArray[np.bool_]]


def pack_rest(rest: Rest) -> dict[str, BinaryIO]:
    """See `Rest`."""
    file, ids = memory_file(), Ids.of(rest.rows.ids)
    _write(file, rest.rows.vectors, ids.text, ids.ends, rest.rows.revisions, rest.rows.offsets, *rest.alive)
    return {"rest": file}


def unpack_rest(parts: Parts) -> Rest:
    """See `Rest`."""
    vectors, text, ends, revisions, offsets, *alive = _read(parts["rest"])
    ids = Ids(text, ends)
    names = [ids[row] for row in range(len(vectors))]
    return Rest(Rows(np.arange(len(vectors)), vectors, names, revisions, offsets), alive)


def _arrays(roster: Roster) -> tuple[NDArray[Any], ...]:
    return roster.hashes, roster.revisions, roster.offsets


def _write(file: BinaryIO, *arrays: NDArray[Any]) -> None:
    for array in arrays:
        np.save(file, array, allow_pickle=False)
    file.flush()


def _read(file: BinaryIO) -> list[NDArray[Any]]:
    return list(_each(file))


def _each(file: BinaryIO) -> Iterator[NDArray[Any]]:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    while file.tell() < size:
        yield np.load(file, allow_pickle=False)


def _path(file: BinaryIO) -> str:
    return f"/proc/self/fd/{file.fileno()}"
