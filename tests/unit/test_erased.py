"""Who was erased stays erased, and nobody reads from the registry who that is."""

from datetime import UTC, datetime, timedelta
from typing import TypeVar

import pytest
from pydantic import SecretStr

from schemas.envelope import REDRIVE, REPLAY_ID, Headers, Message, StoredRecord, as_erasure, decode, encode
from schemas.erased import Erased, ErasureKey, ErasureKeyError
from schemas.events.base import Event, Member
from schemas.events.pairs import DuplicateFound, IndividualChecked, PairDecided
from schemas.events.registrations import IndividualDeleted
from schemas.topics import INDIVIDUALS
from tests.records import stored

TIME = datetime(2026, 1, 31, tzinfo=UTC)
KEY = ErasureKey(SecretStr("0123456789abcdef" * 2))


E = TypeVar("E", bound=Event)


def at(event: E, hours: float = 0) -> Message[E]:
    return Message(event, "id", TIME + timedelta(hours=hours), "test")


def registry(*erasures: tuple[str, int, float]) -> Erased:
    erased = Erased(KEY)
    for who, revision, hours in erasures:
        erased.add(at(KEY.erasure_of("c", who, revision), hours))
    return erased


def checked(who: str, revision: int) -> Message[Event]:
    return at(IndividualChecked(collection="c", individual_id=who, revision=revision, encoder="e", duplicates=0))


def found(a: tuple[str, int], b: tuple[str, int]) -> Message[Event]:
    one, other = (Member(individual_id=who, revision=revision) for who, revision in (a, b))
    return at(DuplicateFound(collection="c", encoder="e", a=one, b=other, distance=0, threshold=1))


def decided(a: str, b: str, hours: float) -> Message[Event]:
    return at(PairDecided(collection="c", encoder="e", a=a, b=b, verdict="same", by="someone"), hours)


@pytest.mark.parametrize("order", [1, -1])
def test_an_event_of_an_erased_revision_does_not_count_and_of_a_later_one_does(order: int) -> None:
    erased = registry(*[("a", 3, 1), ("a", 2, 0)][::order])
    assert [erased.forbids(checked("a", revision)) for revision in (1, 3, 4)] == [True, True, False]
    assert not erased.forbids(checked("b", 1))
    assert erased.forbids(found(("a", 3), ("b", 9)))
    assert erased.forbids(found(("0", 9), ("a", 3)))
    assert not erased.forbids(found(("a", 4), ("b", 1)))


def test_a_decision_made_before_the_erasure_does_not_count() -> None:
    erased = registry(("a", 3, 1))
    assert [erased.forbids(decided("a", "b", hours)) for hours in (0, 1, 2)] == [True, True, False]
    assert erased.forbids(decided("0", "a", 0))


def test_what_was_decided_when_the_erasure_arrives_is_erased_whatever_a_clock_said() -> None:
    """The tablet's deletion of 9:00 arrives at 11:00; decisions were made meanwhile, one by a clock that is ahead."""

    def read(event: Event, hours: float, arrived: float, context: Headers = ()) -> StoredRecord:
        record = encode(Message(event, "id", TIME + timedelta(hours=hours), "test", context))
        return stored(record, timestamp=int((TIME + timedelta(hours=arrived)).timestamp() * 1000))

    deleted = IndividualDeleted(collection="c", individual_id="a", revision=3)

    def erasing(context: Headers = ()) -> Erased:
        record = read(deleted, 9, 11, context)
        message = decode(record, INDIVIDUALS)
        return registry(("a", 3, (as_erasure(message, record.timestamp).time - TIME) / timedelta(hours=1)))

    pair = PairDecided(collection="c", encoder="e", a="a", b="b", verdict="same", by="someone")
    decisions = [read(pair, 10, 10), read(pair, 24 * 365, 10.5), read(pair, 8, 12), read(pair, 11.5, 12)]
    assert [erasing().forbids(decode(one)) for one in decisions] == [True, True, True, False]
    assert decode(read(pair, 24 * 365, 12)).time < TIME + timedelta(hours=12.1), "no clock wins for ever"
    assert [erasing(((REPLAY_ID, b"1"),)).forbids(decode(one)) for one in decisions] == [False, False, True, False]
    assert erasing(((REPLAY_ID, REDRIVE),)).forbids(decode(decisions[0])), "it comes for the first time"


def test_a_clock_that_lost_the_time_bounds_nothing() -> None:
    record = encode(decided("a", "b", 0))
    for timestamp in (0, 1_000, -1_000_000_000_000_000, 10**17):
        assert decode(stored(record, timestamp=timestamp)).time == TIME


def test_the_same_id_in_another_collection_is_another_person() -> None:
    erased = registry(("a", 3, 0))
    assert not erased.forbids(at(IndividualDeleted(collection="d", individual_id="a", revision=1)))


def test_a_registry_made_with_another_key_is_refused() -> None:
    other = ErasureKey(SecretStr("f" * 32))
    with pytest.raises(ErasureKeyError, match="another key"):
        Erased(KEY).add(at(other.erasure_of("c", "a", 1)))


@pytest.mark.parametrize("secret", [None, SecretStr("too short")])
def test_a_key_that_is_missing_or_can_be_guessed_is_refused(secret: SecretStr | None) -> None:
    with pytest.raises(ErasureKeyError, match="openssl rand"):
        ErasureKey(secret)


def test_nothing_of_the_id_or_the_key_stands_in_an_erasure() -> None:
    text = KEY.erasure_of("c", "somebody", 1).model_dump_json()
    assert "somebody" not in text
    assert "0123456789" not in text
