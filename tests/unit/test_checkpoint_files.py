"""What is sealed survives being packed into files."""

from collections.abc import Callable, Mapping
from typing import BinaryIO, TypeVar

import numpy as np
import pytest

from streams.checkpoint.files import (
    Rest,
    pack_absent,
    pack_rest,
    pack_segment,
    unpack_absent,
    unpack_rest,
    unpack_segment,
)
from streams.gallery.build import build_segment
from streams.gallery.exact import VectorRows
from streams.gallery.segment import Segment
from streams.gallery.without_vector import WithoutVector
from tests.population import again, embeddings

T = TypeVar("T")


def unpacked(parts: Mapping[str, BinaryIO], unpack: Callable[[Mapping[str, BinaryIO]], T]) -> T:
    """What the files hold, which are gone afterwards."""
    try:
        return unpack(parts)
    finally:
        for file in parts.values():
            file.close()


def test_a_segment_that_was_packed_gives_the_same_answers() -> None:
    numbers = np.arange(2000, dtype=np.int64)
    rows = VectorRows(embeddings(2000, seed=1), [f"名前-{i}" for i in numbers], numbers + 1, numbers + 100)
    segment = build_segment(rows, 0.45, 0.99, 2)
    after = unpacked(pack_segment(segment), lambda parts: unpack_segment(parts, segment.quality))
    probes, offsets = again(numbers, seed=1), np.full(2000, 1100)
    found, found_after = (one.search(probes, offsets, 0.45) for one in (segment, after))
    assert len(found.rows) > 300
    for before, now in zip(found, found_after, strict=True):
        assert np.array_equal(before, now)
    assert list(after.members(numbers)) == list(segment.members(numbers))
    assert after.living == len(after) == 2000
    assert after.index.ef == segment.quality.ef


@pytest.mark.parametrize("dimensions", [64, 256, 1024])
def test_a_segment_and_a_rest_keep_their_dimensions(dimensions: int) -> None:
    vectors = np.random.default_rng(1).normal(size=(300, dimensions)).astype(np.float32)
    numbers = np.arange(300, dtype=np.int64)
    rows = VectorRows(vectors, [f"p{i}" for i in numbers], numbers + 1, numbers)
    segment = build_segment(rows, 0.45, 0.99, 1)
    after = unpacked(pack_segment(segment), lambda parts: unpack_segment(parts, segment.quality))
    assert after.dimensions == dimensions
    assert np.array_equal(after.take(numbers).vectors, segment.take(numbers).vectors)
    found, found_after = (one.search(vectors, np.full(300, 300), 0.1) for one in (segment, after))
    assert len(found.rows) > 290
    assert np.array_equal(found_after.rows, found.rows)
    rest = unpacked(pack_rest(Rest(rows.chosen(numbers[:0]), [])), unpack_rest)
    assert rest.rows.vectors.shape == (0, dimensions)


def test_a_segment_that_was_packed_before_dimensions_were_noted_is_read() -> None:
    numbers = np.arange(200, dtype=np.int64)
    rows = VectorRows(embeddings(200, seed=1), [f"p{i}" for i in numbers], numbers + 1, numbers)
    segment = build_segment(rows, 0.45, 0.99, 1)
    parts = pack_segment(segment)
    noted = parts["id_table"]
    noted.seek(0)
    arrays = [np.load(noted) for _ in range(7)]
    noted.seek(0)
    noted.truncate()
    for array in arrays:
        np.save(noted, array)
    noted.flush()
    after = unpacked(parts, lambda files: unpack_segment(files, segment.quality))
    assert (len(after), after.dimensions) == (200, 128)
    assert np.array_equal(after.take(numbers).vectors, segment.take(numbers).vectors)


def test_the_absent_who_were_packed_are_the_same() -> None:
    absent = WithoutVector.of(["a", "ü", "c"], [1, 2, 3], [7, 8, 9], [True, False, True])
    after = unpacked(pack_absent(absent), unpack_absent)
    assert np.array_equal(after.id_table.hashes, absent.id_table.hashes)
    assert np.array_equal(after.id_table.revisions, absent.id_table.revisions)
    assert np.array_equal(after.id_table.offsets, absent.id_table.offsets)
    assert np.array_equal(after.erased, absent.erased)


@pytest.mark.parametrize("count", [0, 3])
def test_the_rest_that_was_packed_is_the_same(count: int) -> None:
    ids = ["a", "名前/ü", "c"][:count]
    numbers = np.arange(count, dtype=np.int64)
    rows = VectorRows(embeddings(count, seed=1), ids, numbers + 1, numbers + 100)
    alive = [np.array([True, False, True]), np.array([], np.bool_)]
    after = unpacked(pack_rest(Rest(rows, alive)), unpack_rest)
    assert after.rows.ids == ids
    assert np.array_equal(after.rows.vectors, rows.vectors)
    assert np.array_equal(after.rows.revisions, rows.revisions)
    assert np.array_equal(after.rows.offsets, rows.offsets)
    assert [one.tolist() for one in after.alive] == [one.tolist() for one in alive]


@pytest.mark.parametrize("lacking", ["ids", "shared", "nodes"])
def test_parts_that_do_not_belong_together_are_no_segment(lacking: str) -> None:
    """Chunks with the right checksums may still be of different segments."""
    numbers = np.arange(200, dtype=np.int64)
    rows = VectorRows(embeddings(200, seed=1), [f"p{i}" for i in numbers], numbers + 1, numbers)
    whole = build_segment(rows, 0.45, 0.99, 1)
    part = build_segment(rows.chosen(numbers[:150]), 0.45, 0.99, 1)
    mixed = {
        "ids": (whole.id_table, part.ids, whole.shared, whole.index),
        "shared": (whole.id_table, whole.ids, part.shared, part.index),
        "nodes": (whole.id_table, whole.ids, whole.shared, part.index),
    }
    with pytest.raises(ValueError, match="200 rows"):
        Segment(*mixed[lacking], whole.quality)


@pytest.mark.parametrize("seed", range(40))
def test_a_file_of_unsealed_rows_that_is_damaged_is_refused_or_read_never_anything_else(seed: int) -> None:
    """What it may raise is what `CheckpointStore` takes for an unusable checkpoint: nothing ends the process."""
    random = np.random.default_rng(seed)
    rows = VectorRows(embeddings(20, seed=1), [f"名-{i}" for i in range(20)], np.arange(20), np.arange(20))
    parts = pack_rest(Rest(rows, [np.ones(5, np.bool_)]))
    whole = bytearray(parts["rest"].seek(0) or parts["rest"].read())
    begin, end = sorted(random.integers(0, len(whole), 2).tolist())
    damaged = whole[:begin] + whole[end:] if seed % 2 else whole[:begin] + random.bytes(end - begin) + whole[end:]
    with parts["rest"] as file:
        file.seek(0)
        file.truncate()
        file.write(damaged)
        try:
            rest = unpack_rest({"rest": file})
        except Exception:  # noqa: BLE001 - whatever it is, but for what no Python can catch
            return
    assert len(rest.rows.ids) == len(rest.rows.vectors) == len(rest.rows.revisions) == len(rest.rows.offsets)
