"""The delta finds exactly what a comparison one by one finds, whatever the batches."""

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from streams.gallery.delta import Delta
from streams.gallery.exact import exact_distances
from streams.gallery.gallery import Gallery
from tests.encodings import computed

Make = Callable[[], NDArray[np.float32]]


def one_by_one(
    probes: NDArray[np.float32],
    rows: NDArray[np.float32],
    before: NDArray[np.int64],
    removed: set[int],
    threshold: float,
) -> set[tuple[int, int]]:
    return {
        (i, j)
        for i, probe in enumerate(probes)
        for j in range(before[i])
        if j not in removed and np.linalg.norm(probe.astype(np.float64) - rows[j].astype(np.float64)) <= threshold
    }


@pytest.mark.parametrize("rows", [1, 1023, 1025, 5000])
def test_search_equals_a_comparison_one_by_one(rows: int) -> None:
    random = np.random.default_rng(rows)
    centres = random.normal(size=(40, 128)) * 0.12
    gallery = (centres[random.integers(40, size=rows)] + random.normal(size=(rows, 128)) * 0.03).astype(np.float32)
    removed = set(random.integers(rows, size=rows // 10).tolist())
    delta = Delta(128)
    for offset, vector in enumerate(gallery):
        delta.append(vector, f"p{offset}", 1, offset)
    for row in removed:
        delta.remove(row)
    chosen = random.integers(rows, size=20)
    before = chosen.astype(np.int64)
    hits = delta.search(gallery[chosen], before, 0.45)
    found = set(zip(hits.probes.tolist(), hits.rows.tolist(), strict=True))
    assert found == one_by_one(gallery[chosen], gallery, before, removed, 0.45)
    assert rows == 1 or found
    assert np.allclose(hits.distances, np.linalg.norm(gallery[chosen][hits.probes] - gallery[hits.rows], axis=1))


def test_a_distance_is_the_same_from_both_sides_and_in_any_company(embedding: Make) -> None:
    a, b = embedding(), embedding()
    alone = exact_distances(a[None], b[None])[0]
    others = np.stack([embedding() for _ in range(99)])
    assert exact_distances(b[None], a[None])[0] == alone
    assert exact_distances(np.vstack([others, a[None]]), np.vstack([others, b[None]]))[99] == alone


def test_the_threshold_itself_is_within(embedding: Make) -> None:
    a = embedding()
    b = a.copy()
    b[0] += np.float32(0.25)
    exactly = float(exact_distances(a[None], b[None])[0])
    delta = Delta(128)
    delta.append(a, "a", 1, 0)
    before = np.array([1])
    assert len(delta.search(b[None], before, exactly).rows) == 1
    assert len(delta.search(b[None], before, np.nextafter(exactly, 0)).rows) == 0


def test_what_is_dropped_is_found_no_more_and_the_rest_keeps_its_numbers(embedding: Make) -> None:
    vectors = [embedding() for _ in range(3000)]
    delta = Delta(128)
    rows = [delta.append(vector, f"p{offset}", 1, offset) for offset, vector in enumerate(vectors)]
    delta.remove(rows[7])
    delta.remove(rows[2500])
    sealed = delta.living_rows()
    assert len(sealed.ids) == delta.living == 2998
    late = delta.append(vectors[0], "late", 1, 3000)
    delta.drop_through(rows[1999])
    assert delta.living == 1000
    hits = delta.search(np.stack([vectors[0], vectors[1999], vectors[2500], vectors[2999]]), np.full(4, 9999), 0.1)
    assert set(zip(hits.probes.tolist(), hits.rows.tolist(), strict=True)) == {(3, rows[2999]), (0, late)}
    assert [member.individual_id for member in delta.members([late])] == ["late"]
    assert np.array_equal(sealed.vectors[0], vectors[0])  # what was sealed stays as it was


def test_an_empty_delta_finds_nothing(embedding: Make) -> None:
    assert len(Delta(128).search(embedding()[None], np.array([0]), 0.45).rows) == 0


def test_a_crowd_is_measured_in_little_memory(embedding: Make) -> None:
    """Many registered with one picture: 200 newcomers among 2,000 of them are 400,000 pairs, 400 MB of vectors."""
    crowd = np.tile(embedding(), (2000, 1))
    delta = Delta(128)
    for offset, vector in enumerate(crowd):
        delta.append(vector, f"p{offset}", 1, offset)
    tracemalloc.start()
    try:
        hits = delta.search(crowd[:200], np.full(200, 9999), 0.45)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(hits.rows) == 400_000
    assert peak < 100 * 2**20


def test_a_collection_of_one_person_takes_little_memory(embedding: Make) -> None:
    """A deployment may have tens of thousands of them."""
    events = [computed("p", embedding(), collection=f"c{number}") for number in range(200)]
    gallery = Gallery()
    tracemalloc.start()
    try:
        for offset, event in enumerate(events):
            gallery.apply(event, offset)
        assert tracemalloc.get_traced_memory()[0] / len(events) < 6000
    finally:
        tracemalloc.stop()
