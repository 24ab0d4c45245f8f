"""Redis dies, loses everything, is full, or does not answer, while the matcher works and seals."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from runtime.servers.redis import connect
from schemas.topics import ENCODINGS
from streams.checkpoint.progress import Progress
from tests.integration.conftest import MakeWorld
from tests.integration.faults import PARTITION, begin, published, strike_at_random
from tests.integration.judge import assert_as_the_oracle
from tests.integration.world import World


def kill(world: World) -> None:
    """SIGKILL of the server; its supervisor starts it again."""
    world.stack.supervisor.children["redis"].kill()


def empty(world: World) -> None:
    """All keys are gone."""
    connect(world.settings).flushall()


@contextlib.contextmanager
def full(world: World) -> Iterator[None]:
    """Redis answers, and refuses whatever takes memory."""
    redis = connect(world.settings)
    redis.config_set("maxmemory-policy", "noeviction")
    redis.config_set("maxmemory", 1)
    try:
        yield
    finally:
        redis.config_set("maxmemory", 0)  # no limit, as before


@contextlib.contextmanager
def silent(world: World) -> Iterator[None]:
    """Redis takes connections and answers nothing."""
    server = world.stack.supervisor.children["redis"]
    server.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.signal(signal.SIGCONT)


def meanwhile(fault: contextlib.AbstractContextManager[None], seconds: float) -> None:
    """Let a fault last."""
    with fault:
        threading.Event().wait(seconds)


def test_redis_emptied_killed_and_emptied_again(make_world: MakeWorld) -> None:
    world = begin(make_world, 4_000)
    strikes = (empty, kill, empty)
    strike_at_random(world, lambda number: strikes[number](world), 3, partial(published, world), 4_000)
    assert_as_the_oracle(world)
    assert world.restarts() == {}


@pytest.mark.faults
def test_a_redis_that_is_full_for_seconds_is_waited_for(make_world: MakeWorld) -> None:
    full_for(make_world, 4_000, 4)


@pytest.mark.faults
def test_a_redis_that_is_full_for_a_minute_is_waited_for(make_world: MakeWorld) -> None:
    full_for(make_world, 40_000, 60)


def full_for(make_world: MakeWorld, events: int, seconds: float) -> None:
    world = begin(make_world, events)
    strike_at_random(world, lambda _: meanwhile(full(world), seconds), 1, partial(published, world), events)
    assert_as_the_oracle(world)
    matched = Progress(world.settings).matched(PARTITION)
    assert matched == world.ends(ENCODINGS)[PARTITION], "Redis knows again how far it is"
    assert world.restarts() == {}, "it waits, and does not die again and again"


@pytest.mark.faults
def test_redis_killed_ten_times_in_50_000_events(make_world: MakeWorld) -> None:
    world = begin(make_world, 50_000, collections=2)
    strike_at_random(world, lambda _: kill(world), 10, partial(published, world), 50_000)
    assert_as_the_oracle(world, limit_s=240)


@pytest.mark.faults
def test_redis_emptied_before_the_matcher_is_killed(make_world: MakeWorld) -> None:
    """No checkpoint, no matched offset: the log and the group's committed offset are all that is left."""
    world = begin(make_world, 40_000, collections=2)

    def strike(_: int) -> None:
        empty(world)
        world.crash("match")

    strike_at_random(world, strike, 4, partial(published, world), 40_000)
    assert_as_the_oracle(world, limit_s=240)


@pytest.mark.faults
def test_a_redis_that_does_not_answer_for_half_a_minute_is_waited_for(make_world: MakeWorld) -> None:
    world = begin(make_world, 40_000)
    strike_at_random(world, lambda _: meanwhile(silent(world), 30), 2, partial(published, world), 40_000)
    assert_as_the_oracle(world, limit_s=240)
    assert world.restarts() == {}
