"""The sink is killed, its Postgres restarted, its transactions broken: the tables end as the topics say."""

import threading
import time
from functools import partial

import pytest
from sqlalchemy import func, select, text

from schemas.tables import individuals
from tests.integration.conftest import MakeWorld
from tests.integration.faults import begin, published, strike_at_random
from tests.integration.judge import assert_as_the_oracle
from tests.integration.world import World

_BREAK = text(
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'"
)


def written(world: World) -> int:
    """How many individuals the sink has written as checked."""
    with world.connect() as connection:
        query = select(func.count()).select_from(individuals).where(individuals.c.checked_revision.is_not(None))
        return connection.scalar(query) or 0


def break_transaction(world: World) -> None:
    """End a connection to the world's database in the middle of what it does."""
    broken = 0
    deadline = time.monotonic() + 60
    with world.connect() as connection:
        while not broken:
            broken = connection.scalar(_BREAK) or 0
            connection.rollback()  # a transaction sees one state of pg_stat_activity
            threading.Event().wait(0.01)  # and leave the processor to the sink
            assert time.monotonic() < deadline, "the sink began no transaction within 60 s"


@pytest.mark.faults
def test_ten_transactions_broken_in_30_000_events(make_world: MakeWorld) -> None:
    world = begin(make_world, 30_000)
    sink = world.workers["sink"]
    sink.stop()
    world.wait(lambda: published(world) > 25_000, "so much is found that the sink writes all the time", limit_s=120)
    sink.start()
    strike_at_random(world, lambda _: break_transaction(world), 10, partial(written, world), 30_000)
    assert_as_the_oracle(world, limit_s=240)
    assert world.restarts() == {}


@pytest.mark.faults
def test_postgres_restarted_three_times_in_50_000_events(make_world: MakeWorld) -> None:
    world = begin(make_world, 50_000)

    def restart(_: int) -> None:
        server = world.stack.supervisor.children["postgres"]
        server.stop()
        server.start()
        world.stack.wait_for_server("postgres")

    strike_at_random(world, restart, 3, partial(written, world), 50_000)
    assert_as_the_oracle(world, limit_s=240)
    assert world.restarts() == {}


@pytest.mark.faults
def test_the_sink_killed_twelve_times_in_100_000_events(make_world: MakeWorld) -> None:
    world = begin(make_world, 100_000, collections=3)
    strike_at_random(world, lambda _: world.crash("sink"), 12, partial(written, world), 100_000)
    assert_as_the_oracle(world, limit_s=240)


@pytest.mark.faults
def test_two_sinks_killed_in_turn(make_world: MakeWorld) -> None:
    world = begin(make_world, 50_000, "match", "sink-2", collections=6)
    names = ("sink", "sink-2")
    strike_at_random(world, lambda number: world.crash(names[number % 2]), 6, partial(written, world), 50_000)
    assert_as_the_oracle(world, limit_s=240)
