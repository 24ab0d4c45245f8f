"""The fold of a log holds what a gallery holds that was told every record in turn."""

import base64
from dataclasses import replace

import numpy as np
import pytest

from schemas.envelope import StoredRecord
from schemas.events.encodings import EncodingComputed, EncodingErased
from schemas.shard import Shard
from streams.compaction import census as module
from streams.compaction.census import ERASED, Fold
from streams.gallery.exact import VectorRows
from streams.gallery.gallery import Gallery
from streams.gallery.id_table import falling_to, hashes_of
from streams.matching.match import restore
from tests.encodings import computed, crowd
from tests.unit.test_match import log_of

NAN = base64.b64encode(b"\xff" * 512)
Standing = dict[str, tuple[int, int, bytes]]


@pytest.fixture(scope="module")
def log() -> list[StoredRecord]:
    """Updates, erasures, repetitions, stale revisions, two collections, and records that nobody can read."""
    events = crowd(900, seed=1, collections=("c", "d"))
    at, met = next((at, event) for at, event in enumerate(events) if isinstance(event, EncodingErased))
    late = computed(met.individual_id, np.ones(128, np.float32), met.revision, met.collection)  # as old as the erasure
    records = log_of([*events[: at + 1], late, *events[at + 1 :], *crowd(300, seed=2, prefix="q")])
    encodings = [event for event in events if isinstance(event, EncodingComputed)]
    records[500] = replace(records[500], value=b"garbage")
    for offset, one in ((510, encodings[0]), (520, computed("x", encodings[0].embedding, collection="unread"))):
        text = base64.b64encode(one.embedding.tobytes())
        (record,) = log_of([one])
        assert record.value is not None
        records[offset] = replace(record, value=record.value.replace(text, NAN), offset=offset)
    return records


def told(log: list[StoredRecord], shard: Shard) -> dict[tuple[str, str], Standing]:
    gallery = Gallery(shard)
    restore(gallery, log)
    return {(name, encoder): standing(scope.delta.living_rows()) for name, encoder, scope in gallery.scopes()}


def folded(fold: Fold, shard: Shard = Shard()) -> dict[tuple[str, str], Standing]:
    found = {}
    for census in fold.collections():
        assert (
            census.id_table.hashes.tolist() == hashes_of(census.ids).tolist() == sorted(census.id_table.hashes.tolist())
        )
        for encoder in census.in_use():
            rows = census.living(encoder)
            ours = np.flatnonzero(falling_to(shard, census.id_table.hashes[census.positions(encoder)]))
            found[census.collection, encoder] = standing(rows.chosen(ours))
    return found


def standing(rows: VectorRows) -> Standing:
    facts = zip(rows.revisions.tolist(), rows.offsets.tolist(), map(bytes, rows.vectors), strict=True)
    return dict(zip(rows.ids, facts, strict=True))


@pytest.mark.parametrize("limit", [10, 200_000])
@pytest.mark.parametrize("shard", [Shard(), Shard(2, 3)])
def test_it_holds_what_a_gallery_holds(
    log: list[StoredRecord], shard: Shard, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FIRST_LIMIT", limit)
    fold = Fold()
    for begin in range(0, len(log), 70):
        fold.add(log[begin : begin + 70])
    expected = told(log, shard)
    assert folded(fold, shard) == expected
    assert all(len(one) > 100 for one in expected.values())
    assert folded(fold, shard) == expected  # asked again


def test_of_one_collection_nothing_else_is_held(log: list[StoredRecord]) -> None:
    fold = Fold("d")
    fold.add(log)
    assert folded(fold) == {("d", "test"): told(log, Shard())["d", "test"]}


def test_the_erased_are_known_with_their_revisions_and_have_no_vector(log: list[StoredRecord]) -> None:
    fold = Fold()
    fold.add(log)
    gallery = Gallery()
    restore(gallery, log)
    erased = 0
    for census in fold.collections():
        for row in np.flatnonzero(census.encoders == ERASED):
            latest = gallery.collections[census.collection].find(census.ids[row])
            assert latest is not None
            assert (latest.revision, latest.erased) == (census.id_table.revisions[row], True)
            assert census.ids[row] not in census.living("test").ids
            erased += 1
    assert erased > 10


def test_a_collection_of_which_nothing_can_be_read_is_not_known(log: list[StoredRecord]) -> None:
    fold = Fold()
    fold.add(log)
    assert [census.collection for census in fold.collections()] == ["c", "d"]


def test_nobody_lives_in_an_empty_log() -> None:
    fold = Fold()
    fold.add([])
    assert list(fold.collections()) == []


@pytest.mark.parametrize("limit", [10, 200_000])
def test_each_encoder_has_the_vectors_of_its_own_dimensions(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_LIMIT", limit)
    random, sizes = np.random.default_rng(5), {"narrow": 64, "usual": 128, "wide": 1024}
    events: list[EncodingComputed | EncodingErased] = [
        computed(f"p{person}", random.normal(size=sizes[encoder]).astype(np.float32), revision, collection, encoder)
        for revision in (1, 2)
        for person in range(60)
        for collection in ("c", "d")
        for encoder in [str(random.choice(list(sizes)))]
    ]
    log, fold = log_of(events), Fold()
    for begin in range(0, len(log), 70):
        fold.add(log[begin : begin + 70])
    expected = told(log, Shard())
    assert {encoder for _, encoder in expected} == set(sizes)
    assert {scope: people for scope, people in folded(fold).items() if people} == {
        scope: people for scope, people in expected.items() if people
    }


@pytest.mark.parametrize("limit", [5, 200_000])
def test_an_embedding_of_other_dimensions_than_most_does_not_count(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where it stands first, since Kafka removed what stood before it, nor where it follows somebody's own."""
    monkeypatch.setattr(module, "_FIRST_LIMIT", limit)
    ones = {size: np.ones(size, np.float32) for size in (64, 128, 256)}
    people = [computed(f"p{number}", ones[128]) for number in range(9)]
    odd = computed("odd", ones[256]), computed("p3", ones[64], 2)
    fold = Fold()
    for record in log_of([odd[0], *people, odd[1]]):
        fold.add([record])
    (census,) = fold.collections()
    rows = census.living("test")
    assert sorted(rows.ids) == [f"p{number}" for number in range(9)]
    assert rows.vectors.shape == (9, 128)
    assert rows.revisions.tolist() == [1] * 9
