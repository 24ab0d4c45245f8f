"""Kafka dies, comes back, and refuses findings: nothing is acknowledged that was not published."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined] # all are exported
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from runtime.servers.kafka import client_config, consumer_config
from schemas.envelope import full_name
from schemas.topics import DUPLICATES, ENCODINGS, MATCHER
from streams.checkpoint.progress import Progress
from tests.encodings import crowd
from tests.integration.conftest import MakeWorld
from tests.integration.faults import PARTITION, begin, publish, published, strike_at_random
from tests.integration.judge import assert_as_the_oracle
from tests.integration.world import World


def set_largest_message(world: World, size: int | None) -> None:
    """The largest batch of records that `duplicates` takes, in bytes; None: the broker's own limit."""
    name = full_name(DUPLICATES.name, world.settings.namespace)
    kind = AlterConfigOpType.DELETE if size is None else AlterConfigOpType.SET
    entry = ConfigEntry("max.message.bytes", None if size is None else str(size), incremental_operation=kind)
    resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])
    admin = AdminClient(client_config(world.settings, "test"))
    for outcome in admin.incremental_alter_configs([resource]).values():
        outcome.result(10)


@contextlib.contextmanager
def findings_refused(world: World) -> Iterator[None]:
    """`duplicates` takes nothing."""
    set_largest_message(world, 60)
    try:
        yield
    finally:
        set_largest_message(world, None)


def acknowledged(world: World) -> int:
    """Up to where the work on the collection c is acknowledged: in Redis or in Kafka, whichever says more."""
    place = TopicPartition(full_name(ENCODINGS.name, world.settings.namespace), PARTITION)
    consumer = Consumer(consumer_config(world.settings, MATCHER.name))
    try:
        committed = consumer.committed([place], timeout=10)[0].offset
    finally:
        consumer.close()
    return max(committed, Progress(world.settings).matched(PARTITION) or 0)


def refused_for(make_world: MakeWorld, seconds: float, events: int) -> None:
    """Publish a crowd, another while findings are refused, and look all the time at what is acknowledged."""
    world = begin(make_world, events)
    world.wait(world.settled, "the first crowd is checked")
    said = published(world)
    matched = acknowledged(world)
    with findings_refused(world):
        publish(world, crowd(events, 2, prefix="q"))
        for _ in during(seconds):
            assert acknowledged(world) == matched, "acknowledged although nothing could be published"
            assert published(world) == said, "findings are refused"
    assert_as_the_oracle(world)


def during(seconds: float) -> Iterator[None]:
    """Again and again, for that long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        threading.Event().wait(0.2)


@pytest.mark.faults
def test_nothing_is_acknowledged_while_findings_are_refused(make_world: MakeWorld) -> None:
    refused_for(make_world, 5, 1_000)


@pytest.mark.faults
@pytest.mark.faults
def test_nothing_is_acknowledged_while_findings_are_refused_for_a_minute(make_world: MakeWorld) -> None:
    refused_for(make_world, 60, 10_000)


def stop_for_seconds(world: World) -> None:
    kafka = world.stack.supervisor.children["kafka"]
    kafka.stop()
    threading.Event().wait(15)
    kafka.start()
    world.stack.wait_for_server("kafka")


def kill(world: World) -> None:
    """SIGKILL of the broker; its supervisor starts it again."""
    kafka = world.stack.supervisor.children["kafka"]
    before = kafka.restarts
    kafka.kill()
    world.wait(lambda: kafka.restarts > before, "the broker is started again")
    world.stack.wait_for_server("kafka")


@pytest.mark.faults
@pytest.mark.parametrize("strike", [stop_for_seconds, kill])
def test_kafka_gone_twice_in_50_000_events(make_world: MakeWorld, strike: Callable[[World], None]) -> None:
    world = begin(make_world, 50_000, collections=2)
    strike_at_random(world, lambda _: strike(world), 2, partial(published, world), 50_000)
    assert_as_the_oracle(world, limit_s=240)
