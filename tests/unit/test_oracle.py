"""The oracle that fault tests are held against, held against a double loop."""

import itertools

import numpy as np

from schemas.events.encodings import EncodingComputed, EncodingErased
from tests import oracle
from tests.encodings import EncodingEvent, computed, crowd


def test_pairs_are_those_of_a_double_loop() -> None:
    alive = oracle.living(crowd(900, seed=1, collections=("c", "d"))).values()
    expected = {
        (a.collection, *sorted((a.individual_id, b.individual_id)))
        for a, b in itertools.combinations(alive, 2)
        if a.collection == b.collection and np.linalg.norm(a.embedding - b.embedding) <= 0.45
    }
    found = oracle.pairs(alive, 0.45)
    assert oracle.ids(found) == expected
    assert len(expected) > 50
    assert {collection for collection, _, _ in expected} == {"c", "d"}


def test_the_highest_revision_counts_in_any_order_and_an_erasure_wins_over_its_own() -> None:
    one, two = computed("a", -np.ones(128, np.float32), 1), computed("a", np.ones(128, np.float32), 2)
    erased = EncodingErased(collection="c", individual_id="a", revision=2)
    for encodings in itertools.permutations((one, two)):
        assert oracle.living(encodings) == {"c/a": two}
    everything: tuple[EncodingEvent, ...] = (one, two, erased)
    for events in itertools.permutations(everything):
        assert oracle.living(events) == {}
        assert oracle.latest(events) == {"c/a": erased}


def test_a_revision_lives_from_where_it_is_the_latest_to_where_it_no_longer_is() -> None:
    face = np.ones(128, np.float32)
    one, two, stale = (computed("a", face, revision) for revision in (1, 3, 2))
    erased = EncodingErased(collection="c", individual_id="a", revision=3)
    lives = oracle.lifetimes(enumerate([one, one, two, stale, one, erased, two]))
    assert {key: (life.begin, life.end) for key, life in lives.items()} == {("c/a", 1): (0, 2), ("c/a", 3): (2, 5)}


def test_a_crowd_is_always_the_same_and_has_some_of_everything() -> None:
    events = crowd(5000, seed=3)
    assert [event.key for event in events] == [event.key for event in crowd(5000, seed=3)]
    latest: dict[str, int] = {}
    kinds = {"new": 0, "updated": 0, "erased": 0, "again": 0, "stale": 0}
    for event in events:
        before = latest.get(event.key)
        if before is None:
            kinds["new"] += 1
        elif event.revision == before:
            kinds["again"] += 1
        elif event.revision < before:
            kinds["stale"] += 1
        else:
            kinds["updated" if isinstance(event, EncodingComputed) else "erased"] += 1
        latest[event.key] = max(event.revision, before or 0)
    assert all(number >= 5 for number in kinds.values()), kinds
    assert kinds["new"] > 4000
