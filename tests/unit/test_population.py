"""Generated populations are the same for the same seed, hold their shares, and keep to what they are fitted to."""

import itertools

import numpy as np
import pytest

from schemas.events.encodings import EncodingComputed, EncodingErased
from tests.oracle import living
from tests.population import Population, again, embeddings, individual_id, photos, population


@pytest.fixture(scope="module")
def arrivals() -> Population:
    return population(4000, seed=3, duplicates=0.1, updates=0.05, deletions=0.02)


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others() -> None:
    assert embeddings(100, 1).tobytes() == embeddings(100, 1).tobytes()
    assert not (embeddings(100, 1) == embeddings(100, 2)).any()


def test_an_embedding_is_the_same_whatever_else_is_asked_for() -> None:
    whole = embeddings(9000, 1)
    people = np.array([8999, 4096, 7, 4095])
    assert np.array_equal(photos(people, np.zeros(4, np.int64), 1), whole[people])
    assert np.array_equal(embeddings(5000, 1), whole[:5000])


def test_every_shot_of_a_person_is_another() -> None:
    people = np.arange(50)
    shots = [embeddings(50, 1), again(people, 1), again(people, 1, shot=2)]
    assert all((np.linalg.norm(a - b, axis=1) > 0.1).all() for a, b in itertools.combinations(shots, 2))


def test_photos_of_one_person_are_as_far_apart_as_real_ones() -> None:
    apart = np.linalg.norm(embeddings(10_000, 1) - again(np.arange(10_000), 1), axis=1)
    assert np.quantile(apart, [0.05, 0.5, 0.95]) == pytest.approx([0.309, 0.415, 0.548], abs=0.02)
    assert (apart <= 0.45).mean() == pytest.approx(0.668, abs=0.04)


def test_different_people_are_as_far_apart_as_real_ones() -> None:
    rows = embeddings(4000, 1)
    squares = np.square(rows).sum(axis=1)
    apart = np.sqrt((squares[:, None] + squares - 2 * rows @ rows.T)[np.triu_indices(4000, 1)])
    assert apart.mean() == pytest.approx(0.845, abs=0.02)
    assert apart.std() == pytest.approx(0.101, abs=0.015)
    shares = [float((apart <= threshold).mean()) for threshold in (0.45, 0.5, 0.55, 0.6)]
    assert shares == pytest.approx([3.4e-5, 2.4e-4, 1.13e-3, 5.5e-3], rel=0.4)


def test_norms_are_as_real_ones() -> None:
    norms = np.linalg.norm(embeddings(10_000, 1), axis=1)
    assert (norms.mean(), norms.std()) == (pytest.approx(1.442, abs=0.02), pytest.approx(0.082, abs=0.01))


def test_the_shares_hold(arrivals: Population) -> None:
    registered = arrivals.revisions == 1
    assert len(np.unique(arrivals.people)) == 4000
    assert registered.sum() == 4400
    assert (~registered & ~arrivals.erased).sum() == 220
    assert arrivals.erased.sum() == 88


def test_an_individual_is_registered_first_and_its_revisions_rise_by_one(arrivals: Population) -> None:
    seen: dict[int, int] = {}
    for individual, revision in zip(arrivals.individuals.tolist(), arrivals.revisions.tolist(), strict=True):
        assert revision == seen.get(individual, 0) + 1
        seen[individual] = revision
    assert list(seen) == list(range(4400))


def test_no_photo_is_seen_twice(arrivals: Population) -> None:
    vectors = arrivals.embeddings()[~arrivals.erased]
    assert len(np.unique(vectors, axis=0)) == len(vectors)


def test_events_are_the_arrays_and_duplicates_are_living_people_with_two_ids(arrivals: Population) -> None:
    events = list(arrivals.events())
    assert [isinstance(event, EncodingErased) for event in events] == arrivals.erased.tolist()
    assert [event.individual_id for event in events] == [individual_id(n) for n in arrivals.individuals.tolist()]
    vectors = arrivals.embeddings()
    for event, vector in zip(events, vectors, strict=True):
        assert isinstance(event, EncodingErased) or np.array_equal(event.embedding, vector)
    latest: dict[str, EncodingComputed] = {event.individual_id: event for event in living(events).values()}
    pairs = arrivals.duplicates()
    apart = [np.linalg.norm(latest[a].embedding - latest[b].embedding) for a, b in pairs]
    assert len(pairs) > 380
    assert np.median(apart) == pytest.approx(0.415, abs=0.03)
