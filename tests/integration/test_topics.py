"""Topics that are not as the topic table has them are refused, by `setup` and by whoever works, with what to type."""

import os
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined] # all are exported
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)
from typer.testing import CliRunner

from deploy.cli import app
from deploy.setup.topics import WrongTopicsError, check_topics, create_topics, wait_for_topics
from runtime.servers.kafka import client_config
from schemas.envelope import full_name
from schemas.events.base import Event
from schemas.topics import DUPLICATES, ENCODINGS, ESCALATIONS, INDIVIDUALS, Topic
from tests.integration.world import World


def admin_of(world: World) -> AdminClient:
    return AdminClient(client_config(world.settings, "test"))


def name_of(world: World, topic: Topic[Event]) -> str:
    return full_name(topic.name, world.settings.namespace)


def facematch(world: World, *arguments: str) -> Any:
    return CliRunner(env={**os.environ, **world.env}).invoke(app, arguments)


def set_config(world: World, topic: Topic[Event], **config: str) -> None:
    entries = [
        ConfigEntry(key.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
        for key, value in config.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, name_of(world, topic), incremental_configs=entries)
    admin = admin_of(world)
    for done in admin.incremental_alter_configs([resource]).values():
        done.result()


def recreate(world: World, topic: Topic[Event], partitions: int) -> None:
    """With other partitions, as a consumer does that came first, where Kafka creates topics by itself."""
    admin, name = admin_of(world), name_of(world, topic)
    admin.delete_topics([name])[name].result()

    def created() -> bool:
        try:
            admin.create_topics([NewTopic(name, partitions, 1, config=topic.config)])[name].result()
        except KafkaException as error:  # until the broker has forgotten the one before
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
            return False
        return True

    world.wait(created, f"{name} is created anew")


def refused(world: World) -> str:
    """What everyone says who refuses these topics."""
    with pytest.raises(WrongTopicsError) as by_setup:
        create_topics(world.settings)
    with pytest.raises(WrongTopicsError) as by_workers:
        wait_for_topics(world.settings)
    assert str(by_setup.value) == str(by_workers.value)
    for command in (["setup"], ["compact"], ["erase", "A", "--collection", "c"], ["what-if", "--threshold", "0.4"]):
        done = facematch(world, *command)
        assert done.exit_code == 2, (command, done.output)
        assert "must have" in done.output, (command, done.output)
    return str(by_setup.value)


def test_a_topic_that_was_created_with_another_number_of_partitions_is_refused(world: World) -> None:
    recreate(world, DUPLICATES, 1)
    why = refused(world)
    assert f"topic {name_of(world, DUPLICATES)} has 1 partitions and must have 6" in why
    assert f"kafka-topics.sh --delete --topic {name_of(world, DUPLICATES)}" in why
    recreate(world, DUPLICATES, 6)
    assert facematch(world, "setup").exit_code == 0


def test_a_topic_that_was_given_more_partitions_is_refused(world: World) -> None:
    name = name_of(world, ENCODINGS)
    admin = admin_of(world)
    admin.create_partitions([NewPartitions(name, 12)])[name].result()
    world.wait(lambda: len(admin.list_topics(name, 5).topics[name].partitions) == 12, "it has 12 partitions")
    assert f"topic {name} has 12 partitions and must have 6" in refused(world)
    world.start("match")
    world.wait(lambda: world.restarts().get("match", 0) > 0, "the matcher refuses to work")
    assert any("must have 6" in line for line in world.lines.since(world.begin))
    assert "must have 6" in facematch(world, "status").output


def test_a_topic_that_is_kept_otherwise_is_refused_and_put_right_by_setup(world: World) -> None:
    set_config(world, ENCODINGS, cleanup_policy="delete", delete_retention_ms="1000")
    set_config(world, INDIVIDUALS, retention_bytes="1000000")
    why = refused(world)
    assert "cleanup.policy=compact in the place of delete, delete.retention.ms=1209600000 in the place of 1000" in why
    assert "retention.bytes=-1 in the place of 1000000" in why
    assert "`facematch setup --configure`" in why
    done = facematch(world, "setup", "--configure")
    assert done.exit_code == 0, done.output
    check_topics(world.settings)


def test_an_idle_pool_encodes_no_photo_again_when_kafka_forgets_its_offsets() -> None:
    """A group without members is forgotten after 7 days: by then all that it processed must be gone."""
    longest = int(ESCALATIONS.config["retention.ms"]) + int(ESCALATIONS.config["segment.ms"])
    assert longest < 7 * 24 * 3600 * 1000
