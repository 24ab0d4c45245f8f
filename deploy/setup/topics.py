"""Creates the topics of the topic table, and compares those that are there with it; workers wait for them."""

from collections.abc import Iterator

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined] # all are exported
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from confluent_kafka.cimpl import NewTopic

from deploy.setup.waiting import wait_while
from runtime.servers.kafka import client_config, offsets, retry_while_away
from runtime.servers.log import MissingTopicsError
from runtime.servers.refusals import ask_kafka, refused_by_kafka
from schemas.envelope import full_name
from schemas.events.base import Event
from schemas.faults import UserFault
from schemas.settings import Settings
from schemas.topics import TOPICS, Topic

_TIMEOUT_S = 5.0
_AT_LEAST = ("max.message.bytes",)  # all others must be what the table says


class WrongTopicsError(UserFault):
    """Topics that are there are not as the topic table has them. The text says what to type."""


def create_topics(settings: Settings, configure: bool = False) -> None:
    """Create the topics that are missing, and return once they can be used.

    Existing ones are changed only with `configure`, and only their configuration. Raises WrongTopicsError before
    anything is created, where one of them is not as the topic table has it.
    """
    admin = AdminClient(client_config(settings, "setup"))
    there = retry_while_away(lambda: _partitions(settings, admin), "setup")
    if configure:
        _configure(settings, admin, there)
    _check(settings, admin, there)
    wanted = [
        NewTopic(
            full_name(topic.name, settings.namespace),
            num_partitions=topic.partitions,
            replication_factor=settings.replication_factor,
            config=topic.config,
        )
        for topic in TOPICS
        if topic.name not in there
    ]
    if not wanted:
        return
    places: list[TopicPartition] = []
    others = False
    outcomes = admin.create_topics(wanted, operation_timeout=30)
    for topic in wanted:
        try:
            outcomes[topic.topic].result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
            others = True
        else:
            places += [TopicPartition(topic.topic, partition) for partition in range(topic.num_partitions)]
    # A broker knows of a topic before it leads its partitions; until then it refuses to list their offsets.
    retry_while_away(lambda: [found.result() for found in offsets(admin, places, "latest", 5).values()], "setup")
    if others:  # created meanwhile by another, or by the controller of a broker that had not heard of it yet
        wait_while(lambda: _missing(_partitions(settings, admin)))
        _check(settings, admin, _partitions(settings, admin))


def check_topics(settings: Settings) -> None:
    """Return where all topics are there, as the topic table has them.

    Raises MissingTopicsError, WrongTopicsError; KafkaException where the broker does not answer.
    """
    admin = AdminClient(client_config(settings, "check"))
    there = _partitions(settings, admin)
    if missing := _missing(there):
        raise MissingTopicsError(f"Kafka has not the topics of this namespace: {missing}")
    _check(settings, admin, there)


def wait_for_topics(settings: Settings) -> None:
    """Wait, with growing pauses, for Kafka and all topics. Raises AccessRefusedError, WrongTopicsError."""
    admin = AdminClient(client_config(settings, "wait"))

    def missing() -> str:
        try:
            ask_kafka(settings)
            there = _partitions(settings, admin)
            _check(settings, admin, there)
            return _missing(there)
        except KafkaException as error:
            if refusal := refused_by_kafka(settings, error.args[0]):
                raise refusal from None
            return f"Kafka does not answer ({error.args[0].str()})"

    wait_while(missing)


def _partitions(settings: Settings, admin: AdminClient) -> dict[str, int]:
    """How many partitions each topic has on the broker; missing ones are left out. Raises KafkaException."""
    wanted = {full_name(topic.name, settings.namespace): topic.name for topic in TOPICS}
    there = {}
    for name, found in admin.describe_topics(TopicCollection(list(wanted)), request_timeout=_TIMEOUT_S).items():
        try:
            there[wanted[name]] = len(found.result().partitions)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
    return there


def _missing(there: dict[str, int]) -> str:
    """What to type to create missing topics; empty: none is missing."""
    topics = sorted(topic.name for topic in TOPICS if topic.name not in there)
    return f"`facematch setup` has not created {', '.join(topics)}" if topics else ""


def _check(settings: Settings, admin: AdminClient, there: dict[str, int]) -> None:
    """Compare the topics that are there, by their partitions, with the table. Raises WrongTopicsError."""
    problems = []
    for topic in TOPICS:
        name, partitions = full_name(topic.name, settings.namespace), there.get(topic.name, topic.partitions)
        if partitions != topic.partitions:
            problems.append(
                f"topic {name} has {partitions} partitions and must have {topic.partitions}. Where it is empty, delete "
                f"it (kafka-topics.sh --delete --topic {name}) and run `facematch setup`; where it is not, see "
                "docs/runbook.md, Topics are wrong"
            )
    for topic, differing in _differing(settings, admin, there):
        which = ", ".join(f"{key}={value} in the place of {found}" for key, (found, value) in differing.items())
        problems.append(
            f"topic {full_name(topic.name, settings.namespace)} must have {which}: `facematch setup --configure` "
            "sets it"
        )
    if problems:
        raise WrongTopicsError("; ".join(problems))


def _configure(settings: Settings, admin: AdminClient, there: dict[str, int]) -> None:
    """Set what differs from the table in the configuration of topics that are there; return once the broker shows it.

    Raises KafkaException.
    """
    resources = [
        ConfigResource(
            ResourceType.TOPIC,
            full_name(topic.name, settings.namespace),
            incremental_configs=[
                ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
                for key, (_, value) in differing.items()
            ],
        )
        for topic, differing in _differing(settings, admin, there)
    ]
    if not resources:
        return
    for done in admin.incremental_alter_configs(resources).values():
        done.result()
    # A controller takes a configuration before the broker that is asked knows of it.
    wait_while(lambda: ", ".join(topic.name for topic, _ in _differing(settings, admin, there)))


def _differing(
    settings: Settings, admin: AdminClient, there: dict[str, int]
) -> Iterator[tuple[Topic[Event], dict[str, tuple[str | None, str]]]]:
    """Of each topic that is there and differs: what it has and what it must have, by Kafka's names."""
    named = {full_name(topic.name, settings.namespace): topic for topic in TOPICS if topic.name in there}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in named]
    described = admin.describe_configs(resources, request_timeout=_TIMEOUT_S) if resources else {}
    for resource, future in described.items():
        found, topic = future.result(), named[resource.name]
        differing = {}
        for key, value in topic.config.items():
            has = found[key].value if key in found else None
            if has != value and not (key in _AT_LEAST and has is not None and int(has) >= int(value)):
                differing[key] = has, value
        if differing:
            yield topic, differing
