"""Which of two records of an individual counts, which of two statements on a pair: the same rule in every form."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.sink.rows import rows_of
from producers.replay.outcomes import Outcomes
from schemas.envelope import Message, StoredRecord, encode
from schemas.events.base import Member, individual_key, individual_of, key_prefix
from schemas.events.encodings import EncodingErased, EncodingEvent, Rank, rank_keys
from schemas.events.pairs import (
    DuplicateFound,
    PairEvent,
    Version,
    check_key,
    is_pair_id,
    pair_id,
    parse_check_key,
    version_keys,
)
from schemas.shard import Shard
from streams.compaction.census import Fold
from streams.compaction.findings import Findings
from streams.gallery.gallery import Gallery
from streams.gallery.id_table import hashes_of, last_of_each
from tests.encodings import computed
from tests.records import stored

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
VECTOR = np.full(128, 0.1, np.float32)
LARGEST = 2**63 - 1
REVISIONS = st.sampled_from([1, 2, 3, LARGEST - 1, LARGEST])
STATEMENTS = st.lists(st.tuples(REVISIONS, REVISIONS, st.integers(0, 2)), min_size=1, max_size=8)
RECORDS = st.lists(st.tuples(st.integers(1, 3), st.booleans()), min_size=1, max_size=8)


def found(number: int, revision_a: int, revision_b: int, microseconds: int) -> Message[DuplicateFound]:
    """A statement whose distance says which it was."""
    event = DuplicateFound(
        collection="c",
        encoder="e",
        a=Member(individual_id="a", revision=revision_a),
        b=Member(individual_id="b", revision=revision_b),
        distance=number,
        threshold=9,
    )
    return Message(event, f"m{number}", NOON + timedelta(microseconds=microseconds), "test")


def counts_of(statements: list[Message[DuplicateFound]]) -> int:
    """The number of the one that counts, by the rule as it stands."""
    versions = [message.event.version(message.time) for message in statements]
    return versions.index(max(versions))


@given(STATEMENTS)
def test_of_statements_on_a_pair_python_numpy_and_the_sinks_batch_choose_the_same(
    drawn: list[tuple[int, int, int]],
) -> None:
    statements = [found(number, *one) for number, one in enumerate(drawn)]
    expected = counts_of(statements)
    revisions_a, revisions_b, times = np.array(drawn, dtype=np.int64).T
    order = np.lexsort((-np.arange(len(drawn)), *version_keys(revisions_a, revisions_b, times)))
    assert order[-1] == expected
    (row,) = rows_of([(message, 0) for message in statements]).duplicates
    assert row["distance"] == expected
    findings = Findings("c")
    findings.add([stored(encode(message), at) for at, message in enumerate(statements)])
    assert findings.statements("c", "e").current.distances.tolist() == [expected]


@given(RECORDS)
def test_of_records_of_an_individual_gallery_census_and_replay_choose_the_same(drawn: list[tuple[int, bool]]) -> None:
    events: list[EncodingEvent] = [
        EncodingErased(collection="c", individual_id="a", revision=revision)
        if is_erasure
        else computed("a", VECTOR, revision)
        for revision, is_erasure in drawn
    ]
    ranks = [event.rank for event in events]
    expected = max(range(len(ranks)), key=lambda at: (ranks[at], at))

    gallery = Gallery()
    for at, event in enumerate(events):
        gallery.apply(event, at)
    latest = gallery.collections["c"].find("a")
    assert latest is not None
    assert (latest.offset, latest.revision, latest.erased) == (expected, *ranks[expected])

    log = [log_record(event, at) for at, event in enumerate(events)]
    fold, outcomes = Fold(), Outcomes()
    fold.add(log)
    (census,) = fold.collections()
    assert census.id_table.offsets.tolist() == [expected]
    for record in log:
        outcomes.add_encoding(record)
    assert outcomes.encodings["c/a"].offset == expected


def log_record(event: EncodingEvent, offset: int) -> StoredRecord:
    return stored(encode(Message(event, f"m{offset}", NOON, "test")), offset)


@given(RECORDS)
def test_ranks_in_numpy_are_those_in_python(drawn: list[tuple[int, bool]]) -> None:
    revisions, erasures = np.array([one for one, _ in drawn], np.int64), np.array([one for _, one in drawn])
    order = np.lexsort(rank_keys(revisions, erasures))
    ranks = [Rank(*drawn[at]) for at in order.tolist()]
    assert all(one <= other for one, other in pairwise(ranks))
    assert last_of_each(hashes_of(["a"] * len(drawn)), *rank_keys(revisions, erasures)).tolist() == [order[-1]]


def test_a_check_of_a_higher_revision_counts_more_whenever_it_was_made() -> None:
    assert Version(2, NOON) > Version(1, NOON + timedelta(days=1))
    assert issubclass(DuplicateFound, PairEvent)


COLLECTIONS = st.from_regex(r"[A-Za-z0-9._-]{1,8}", fullmatch=True)
IDS = st.from_regex(r"[^\x00-\x1f\x7f]{1,12}", fullmatch=True)


@given(COLLECTIONS, IDS, st.sampled_from([Shard(), Shard(2, 8), Shard(1000, 1000)]))
def test_keys_are_taken_apart_as_they_were_put_together(collection: str, individual_id: str, shard: Shard) -> None:
    key = individual_key(collection, individual_id)
    assert individual_of(key) == (collection, individual_id)
    assert key.startswith(key_prefix(collection))
    assert parse_check_key(check_key(key, shard)) == (shard, key)
    assert not is_pair_id(check_key(key, shard))


def test_what_is_no_key_of_a_check_is_none() -> None:
    assert is_pair_id(pair_id("c", "e", "a", "b"))
    for key in (pair_id("c", "e", "a", "b"), "", "c", "c/", "/a", "@2/8/a", "@9/8/c/a", "@0/0/c/a", "@x/8/c/a"):
        assert parse_check_key(key) is None, key


@pytest.mark.parametrize(("one", "other"), [("a", "b"), ("b", "a")])
def test_a_pair_has_one_id_in_either_order(one: str, other: str) -> None:
    assert pair_id("c", "e", one, other) == pair_id("c", "e", "a", "b")
