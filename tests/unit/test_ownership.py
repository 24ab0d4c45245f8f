"""A process that lost a partition, or stood still for so long that it may have, says and stores nothing more."""

import pytest

from runtime.servers.kafka import SESSION_TIMEOUT_S
from streams.matcher.ownership import Ownership, PartitionLostError, ProcessWasFrozenError
from tests.conftest import Clock


@pytest.fixture
def ownership(clock: Clock) -> Ownership:
    """Of partitions 1 and 2."""
    made = Ownership(clock)
    made.set([1, 2])
    return made


def test_nothing_is_owned_before_it_is_given() -> None:
    with pytest.raises(PartitionLostError, match="partition 0 has gone"):
        Ownership().check(0)


def test_what_was_given_is_owned_as_long_as_the_process_runs(ownership: Ownership, clock: Clock) -> None:
    for _ in range(1000):
        clock.now += 0.7 * SESSION_TIMEOUT_S
        ownership.check(1)
        assert ownership.owns(2)
        assert not ownership.owns(3)


def test_a_partition_that_was_revoked_is_lost_and_the_others_stay(ownership: Ownership) -> None:
    ownership.set([2])
    assert not ownership.owns(1)
    with pytest.raises(PartitionLostError, match="partition 1 has gone to another process"):
        ownership.check(1)
    ownership.check(2)
    ownership.set([1, 2])
    ownership.check(1)


@pytest.mark.parametrize("first", ["owns", "check", "tick"])
def test_that_the_process_was_frozen_is_noticed_by_whoever_asks_first_and_for_good(
    ownership: Ownership, clock: Clock, first: str
) -> None:
    """Before Kafka gives its partitions away; if the tick came first, who asks next would see nothing unusual."""
    clock.now += 0.9 * SESSION_TIMEOUT_S
    match first:
        case "owns":
            assert not ownership.owns(1)
        case "check":
            with pytest.raises(ProcessWasFrozenError):
                ownership.check(1)
        case "tick":
            ownership.tick()
    for _ in range(3):
        ownership.tick()
        assert not ownership.owns(1)
        with pytest.raises(ProcessWasFrozenError, match="stood still"):
            ownership.check(2)
        ownership.set([1, 2])  # what it heard of the group before it stood still may be said afterwards


def test_a_tick_in_time_is_no_standing_still(ownership: Ownership, clock: Clock) -> None:
    for _ in range(10):
        clock.now += 0.7 * SESSION_TIMEOUT_S
        ownership.tick()
    ownership.check(1)
