"""Sealed parts of a gallery as files in memory, and back: arrays in numpy's format, indexes in hnswlib's."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import hnswlib
import numpy as np
from numpy.typing import NDArray

from schemas.events.encodings import FEWEST_DIMENSIONS, MOST_DIMENSIONS
from streams.gallery.exact import VectorRows
from streams.gallery.id_table import IdTable
from streams.gallery.segment import Ids, IndexQuality, Segment
from streams.gallery.shared_vectors import SharedVectors
from streams.gallery.without_vector import WithoutVector

Parts = Mapping[str, BinaryIO]
_DIMENSIONS_BEFORE = 128  # of segments that were packed when all embeddings had as many, and are not noted


def memory_file() -> BinaryIO:
    """An empty file in memory, gone when it is closed. hnswlib reads and writes files only."""
    return os.fdopen(os.memfd_create("facematch"), "w+b")


def pack_segment(segment: Segment) -> dict[str, BinaryIO]:
    """The files of a segment, without what is masked."""
    id_table, index = memory_file(), memory_file()
    _write(
        id_table,
        *_arrays(segment.id_table),
        segment.ids.text,
        segment.ids.ends,
        segment.shared.rows,
        segment.shared.begins,
        np.array(segment.dimensions),
    )
    segment.index.save_index(_path(index))
    return {"id_table": id_table, "index": index}


def unpack_segment(parts: Parts, quality: IndexQuality) -> Segment:
    """A segment without masked rows. Raises ValueError, EOFError or RuntimeError if the files make none."""
    hashes, revisions, offsets, text, ends, rows, begins, *noted = _read(parts["id_table"])
    (dimensions,) = noted or [np.array(_DIMENSIONS_BEFORE)]
    index = hnswlib.Index(space="l2", dim=_checked(int(dimensions)))
    index.load_index(_path(parts["index"]))
    return Segment(IdTable(hashes, revisions, offsets), Ids(text, ends), SharedVectors(rows, begins), index, quality)


def pack_absent(absent: WithoutVector) -> dict[str, BinaryIO]:
    """The file of individuals without a vector."""
    file = memory_file()
    _write(file, *_arrays(absent.id_table), absent.erased)
    return {"absent": file}


def unpack_absent(parts: Parts) -> WithoutVector:
    """See `pack_absent`. Raises ValueError or EOFError if the file has none."""
    hashes, revisions, offsets, erased = _read(parts["absent"])
    return WithoutVector(IdTable(hashes, revisions, offsets), erased)


@dataclass(frozen=True, slots=True)
class Rest:
    """What a scope has beside its segments: the rows of its delta, and per segment which rows are living, (n,) bool."""

    rows: VectorRows
    alive: list[NDArray[np.bool_]]


def pack_rest(rest: Rest) -> dict[str, BinaryIO]:
    """See `Rest`."""
    file, ids = memory_file(), Ids.of(rest.rows.ids)
    _write(file, rest.rows.vectors, ids.text, ids.ends, rest.rows.revisions, rest.rows.offsets, *rest.alive)
    return {"rest": file}


def unpack_rest(parts: Parts) -> Rest:
    """See `Rest`. Raises ValueError, EOFError or UnicodeDecodeError if the file has none."""
    vectors, text, ends, revisions, offsets, *alive = _read(parts["rest"])
    if vectors.dtype != np.float32 or vectors.ndim != 2:
        raise ValueError(f"vectors of {vectors.dtype} and shape {vectors.shape}")
    _checked(vectors.shape[1])
    ids = Ids(text, ends)
    if not len(vectors) == len(ids) == len(revisions) == len(offsets):
        raise ValueError("columns of different lengths")
    if any(one.dtype != np.bool_ or one.ndim != 1 for one in alive):
        raise ValueError("masks that are none")
    names = [ids[row] for row in range(len(vectors))]
    return Rest(VectorRows(vectors, names, revisions, offsets), alive)


def _checked(dimensions: int) -> int:
    if not FEWEST_DIMENSIONS <= dimensions <= MOST_DIMENSIONS:
        raise ValueError(f"vectors of {dimensions} dimensions")
    return dimensions


def _arrays(id_table: IdTable) -> tuple[NDArray[Any], ...]:
    return id_table.hashes, id_table.revisions, id_table.offsets


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
