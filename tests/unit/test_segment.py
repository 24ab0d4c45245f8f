"""A sealed segment reaches its recall floor, and loses and invents nothing else."""

from collections.abc import Callable
from typing import Any

import hnswlib
import numpy as np
import pytest
from numpy.typing import NDArray

from streams.gallery import build
from streams.gallery import segment as segments
from streams.gallery.build import build_segment
from streams.gallery.exact import Hits, VectorRows, exact_distances, half_norms, search_block
from streams.gallery.recall import recall_of
from streams.gallery.segment import IndexQuality, Segment, search_index
from tests.population import again, embeddings

Make = Callable[[], NDArray[np.float32]]
THRESHOLD = 0.45
LATER = 10**9
Pairs = set[tuple[int, int]]


def rows_of(vectors: NDArray[np.float32]) -> VectorRows:
    """Row i is of p<i>, of revision i + 1, at offset i."""
    numbers = np.arange(len(vectors), dtype=np.int64)
    return VectorRows(vectors, [f"p{i}" for i in numbers], numbers + 1, numbers)


def sealed(vectors: NDArray[np.float32], floor: float = 0.999, at_least: IndexQuality | None = None) -> Segment:
    return build_segment(rows_of(vectors), THRESHOLD, floor, 1, at_least)  # one thread: always the same graph


def named(segment: Segment, hits: Hits) -> Pairs:
    """Who was found, by the row in which they were handed over."""
    members = list(segment.members(hits.rows))
    assert all(member.individual_id == f"p{member.revision - 1}" for member in members)
    pairs = [(at, member.revision - 1) for at, member in zip(hits.probes.tolist(), members, strict=True)]
    assert len(set(pairs)) == len(pairs)
    return set(pairs)


def found(segment: Segment, probes: NDArray[np.float32], before: int = LATER) -> Pairs:
    return named(segment, segment.search(probes, np.full(len(probes), before), THRESHOLD))


def exactly(probes: NDArray[np.float32], vectors: NDArray[np.float32]) -> Pairs:
    hits = search_block(probes, vectors, half_norms(vectors), THRESHOLD)
    return set(zip(hits.probes.tolist(), hits.rows.tolist(), strict=True))


@pytest.fixture(scope="module")
def people() -> NDArray[np.float32]:
    return embeddings(6000, seed=1)


@pytest.fixture(scope="module")
def newcomers() -> NDArray[np.float32]:
    """Other photos of those people, and strangers."""
    return np.vstack([again(np.arange(3000), seed=1), embeddings(3000, seed=2)])


@pytest.fixture(scope="module")
def _sealed_people(people: NDArray[np.float32]) -> Segment:
    return sealed(people)


@pytest.fixture
def segment(_sealed_people: Segment) -> Segment:
    """Nothing of it is masked."""
    _sealed_people.alive[:] = True
    _sealed_people.remove_rows(np.empty(0, np.int64))
    return _sealed_people


def test_newcomers_whom_the_builder_never_saw_are_found_as_often_as_the_floor_asks(
    segment: Segment, people: NDArray[np.float32], newcomers: NDArray[np.float32]
) -> None:
    expected = exactly(newcomers, people)
    there = found(segment, newcomers)
    assert len(expected) > 2000
    assert there <= expected
    assert len(there) / len(expected) >= 0.999
    assert segment.quality.recall >= 0.999
    assert segment.quality.sample_pairs >= 4000


def test_distances_are_exactly_those_of_the_delta(
    segment: Segment, people: NDArray[np.float32], newcomers: NDArray[np.float32]
) -> None:
    hits = segment.search(newcomers, np.full(len(newcomers), LATER), THRESHOLD)
    rows = np.array([member.revision - 1 for member in segment.members(hits.rows)])
    assert np.array_equal(hits.distances, exact_distances(newcomers[hits.probes], people[rows]))
    assert hits.distances.max() <= THRESHOLD


def test_masked_rows_are_never_found(
    segment: Segment, people: NDArray[np.float32], newcomers: NDArray[np.float32]
) -> None:
    before = found(segment, newcomers)
    gone = {row for _, row in list(before)[::3]}
    for _ in range(2):  # masked ones stay masked
        segment.remove_ids([f"p{row}" for row in gone] + ["never seen"])
    assert segment.living == len(people) - len(gone)
    assert found(segment, newcomers) == {(at, row) for at, row in before if row not in gone}
    last = next(iter({row for _, row in before} - gone))
    segment.remove(int(np.flatnonzero(segment.id_table.revisions == last + 1)[0]))
    assert segment.living == len(people) - len(gone) - 1
    assert last not in {row for _, row in found(segment, newcomers)}


def test_only_those_are_found_who_stand_before_the_newcomer_in_the_log(
    segment: Segment, people: NDArray[np.float32]
) -> None:
    everyone = found(segment, people)
    assert len({(at, row) for at, row in everyone if row > at}) > 20
    hits = segment.search(people, np.arange(len(people)), THRESHOLD)
    assert named(segment, hits) == {(at, row) for at, row in everyone if row < at}


def test_everyone_of_a_crowd_is_found_with_the_exact_distance(embedding: Make) -> None:
    """Many registered with one picture: no k is large enough for them but the one that is doubled until it is."""
    crowd = np.vstack([np.tile(embedding(), (3000, 1)), embeddings(1000, seed=1)])
    index = index_of(crowd, m=16)
    hits = search_index(index, crowd[[0, 3500]], THRESHOLD)
    assert set(hits.rows[hits.probes == 0].tolist()) == set(range(3000))
    assert len(hits.rows) == len(set(zip(hits.probes.tolist(), hits.rows.tolist(), strict=True)))
    assert (hits.distances[hits.probes == 0] == 0).all()
    assert 3500 in hits.rows[hits.probes == 1]


def index_of(vectors: NDArray[np.float32], m: int) -> hnswlib.Index:
    index = hnswlib.Index(space="l2", dim=128)
    index.init_index(len(vectors), M=m, ef_construction=100)
    index.add_items(vectors, np.arange(len(vectors)), num_threads=1)
    index.set_ef(32)
    return index


def test_an_index_whose_graph_leads_to_too_few_is_searched_exactly() -> None:
    """So sparse that some nodes have no link to them, and all are in reach of the newcomer."""
    vectors = embeddings(300, seed=1) * np.float32(0.1)
    index = index_of(vectors, m=2)
    with pytest.raises(RuntimeError, match="contiguous"):
        index.knn_query(vectors[:1], k=300)
    hits = search_index(index, vectors[::100], THRESHOLD)
    pairs = list(zip(hits.probes.tolist(), hits.rows.tolist(), strict=True))
    assert sorted(pairs) == [(at, row) for at in range(3) for row in range(300)]
    assert np.array_equal(hits.distances, exact_distances(vectors[::100][hits.probes], vectors[hits.rows]))


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9])
def test_a_handful_of_rows_is_sealed_too(embedding: Make, count: int) -> None:
    alike, unlike = np.tile(embedding(), (count, 1)), np.stack([embedding() for _ in range(count)])
    assert found(sealed(alike), alike) == {(a, b) for a in range(count) for b in range(count)}
    assert found(sealed(unlike), unlike) == {(a, a) for a in range(count)}


class Tried:
    """The (M, ef) that were measured, one after the other, when the recall of each is as told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, recall: Callable[[int, int], float]) -> None:
        self.order: list[tuple[int, int]] = []

        def search(index: Any, probes: NDArray[np.float32], threshold: float) -> Hits:
            self.order.append((index.M, index.ef))
            hits = segments._scan(index, probes, threshold)
            kept = np.arange(len(hits.rows)) < recall(index.M, index.ef) * len(hits.rows)
            return Hits(hits.probes[kept], hits.rows[kept], hits.distances[kept])

        monkeypatch.setattr(build, "search_index", search)
        monkeypatch.setattr(build, "DENSITIES", (build.Density(4, 40, 20), build.Density(8, 80, 80)))
        monkeypatch.setattr(build, "_EFS", (10, 20, 40, 80))


@pytest.mark.parametrize(
    ("enough", "tried"),
    [
        ((4, 10), [(4, 10)]),
        ((4, 20), [(4, 10), (4, 20)]),
        ((8, 10), [(4, 10), (4, 20), (8, 10)]),  # a denser one before an ef that costs more
        ((8, 40), [(4, 10), (4, 20), (8, 10), (8, 20), (8, 40)]),
    ],
)
def test_the_first_index_that_reaches_the_floor_is_taken(
    monkeypatch: pytest.MonkeyPatch, enough: tuple[int, int], tried: list[tuple[int, int]]
) -> None:
    steps = Tried(monkeypatch, lambda m, ef: 1.0 if (m, ef) >= enough else 0.9)
    quality = sealed(embeddings(300, seed=1), 0.95).quality
    assert steps.order == tried
    assert (quality.m, quality.ef_construction, quality.ef, quality.recall) == (enough[0], 10 * enough[0], enough[1], 1)


def test_no_sparser_index_is_tried_than_an_earlier_segment_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Tried(monkeypatch, lambda *_: 1.0)
    earlier = IndexQuality(m=8, ef_construction=80, ef=40, recall=1, sample_pairs=1)
    assert sealed(embeddings(300, seed=1), 0.95, earlier).quality.m == 8
    assert steps.order == [(8, 10)]


def test_the_quality_of_a_segment_that_does_not_reach_the_floor_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = embeddings(300, seed=1)
    steps = Tried(monkeypatch, lambda *_: 0.5)
    segment = sealed(vectors, 0.95)
    assert steps.order[-1] == (segment.quality.m, segment.quality.ef) == (8, 80)
    assert segment.quality.recall == pytest.approx(0.5, abs=0.01)
    assert segment.index.ef == 80
    monkeypatch.undo()
    assert {(row, row) for row in range(300)} <= found(segment, vectors)  # it is used as it is


def test_recall_is_measured_and_not_assumed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index far too sparse for 3,000 rows: what its quality says is what newcomers meet."""
    monkeypatch.setattr(build, "DENSITIES", (build.Density(2, 4, 8),))
    monkeypatch.setattr(build, "_EFS", (8,))
    vectors, probes = embeddings(3000, seed=1), again(np.arange(3000), seed=1)
    segment = sealed(vectors, 0.95)
    met = len(found(segment, probes)) / len(exactly(probes, vectors))
    assert 0.05 < segment.quality.recall < 0.9
    assert segment.quality.recall == pytest.approx(met, abs=0.15)


def test_where_people_look_alike_recall_is_measured_with_rows_held_out_until_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(build, "DENSITIES", (build.Density(4, 20, 16),))
    monkeypatch.setattr(build, "_EFS", (16,))
    vectors, probes = (np.float32(0.7) * embeddings(6000, seed) for seed in (1, 2))
    segment = sealed(vectors, 0.95)
    expected, there = exactly(probes, vectors), found(segment, probes)
    at = np.array([probe for probe, _ in expected])
    met = recall_of(at, np.array([pair in there for pair in expected])).share
    assert segment.quality.recall == pytest.approx(met, abs=0.04)  # of probes that are made up it is 0.50
    assert 0.55 < met < 0.65
    assert sorted(segment.index.get_ids_list()) == list(range(6000))


@pytest.mark.parametrize(("densities", "built"), [((2, 16), {2: 0.1, 16: 1}), ((16, 32), {16: 1})])
def test_of_many_rows_an_index_that_will_be_in_vain_is_given_up_at_a_tenth(
    monkeypatch: pytest.MonkeyPatch, people: NDArray[np.float32], densities: tuple[int, int], built: dict[int, float]
) -> None:
    """And one that suffices is not."""
    monkeypatch.setattr(build, "_TRIAL_FROM", len(people))
    monkeypatch.setattr(build, "_ADDED_AT_ONCE", 100)
    monkeypatch.setattr(build, "DENSITIES", [build.Density(m, 3 * m, 6 * m) for m in densities])
    reached: dict[tuple[str, str], int] = {}

    def progress(stage: str, done: int, _: int, detail: str = "") -> None:
        reached[stage, detail] = max(done, reached.get((stage, detail), 0))

    segment = build_segment(rows_of(people), THRESHOLD, 0.99, 1, progress=progress)
    shares = {
        int(detail.removeprefix("M ")): done / len(people)
        for (stage, detail), done in reached.items()
        if stage == "building"
    }
    assert shares.keys() == built.keys()
    assert all(shares[m] == pytest.approx(share, abs=0.05) for m, share in built.items())
    assert segment.quality.m == max(built)
