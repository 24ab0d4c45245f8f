"""Creates the topics of the topic table; workers wait for them."""

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from deploy.setup.waiting import wait_while
from runtime.servers.kafka import client_config, offsets, retry_while_away
from runtime.servers.log import MissingTopicsError
from runtime.servers.refusals import ask_kafka, refused_by_kafka
from schemas.envelope import full_name
from schemas.settings import Settings
from schemas.topics import TOPICS


def create_topics(settings: Settings) -> None:
    """Create the topics that are missing, and return once they can be used. Existing ones are not changed."""
    admin = AdminClient(client_config(settings, "setup"))
    wanted = [
        NewTopic(
            full_name(topic.name, settings.namespace),
            num_partitions=topic.partitions,
            replication_factor=settings.replication_factor,
            config=topic.config,
        )
        for topic in TOPICS
    ]
    places: list[TopicPartition] = []
    outcomes = admin.create_topics(wanted, operation_timeout=30)
    for topic in wanted:
        try:
            outcomes[topic.topic].result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
        else:
            places += [TopicPartition(topic.topic, partition) for partition in range(topic.num_partitions)]
    # A broker knows of a topic before it leads its partitions; until then it refuses to list their offsets.
    retry_while_away(lambda: [found.result() for found in offsets(admin, places, "latest", 5).values()], "setup")


def check_topics(settings: Settings) -> None:
    """Raise MissingTopicsError where any is missing. Raises KafkaException where the broker does not answer."""
    if missing := _missing(settings, AdminClient(client_config(settings, "check"))):
        raise MissingTopicsError(f"Kafka has not the topics of this namespace: {missing}")


def wait_for_topics(settings: Settings) -> None:
    """Wait, with growing pauses, for Kafka and all topics. Raises AccessRefusedError."""
    admin = AdminClient(client_config(settings, "wait"))

    def missing() -> str:
        try:
            ask_kafka(settings)
            return _missing(settings, admin)
        except KafkaException as error:
            if refusal := refused_by_kafka(settings, error.args[0]):
                raise refusal from None
            return f"Kafka does not answer ({error.args[0].str()})"

    wait_while(missing)


def _missing(settings: Settings, admin: AdminClient) -> str:
    """What to type to create missing topics; empty: none is missing. Raises KafkaException."""
    wanted = TopicCollection([full_name(topic.name, settings.namespace) for topic in TOPICS])
    topics = []
    for name, found in admin.describe_topics(wanted, request_timeout=5).items():
        error = found.exception()
        if isinstance(error, KafkaException) and error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            topics.append(name)
        elif error is not None:
            raise error
    return f"`facematch setup` has not created {', '.join(sorted(topics))}" if topics else ""
