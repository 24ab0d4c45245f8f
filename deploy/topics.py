"""Creates the topics of the topic table; workers wait for them."""

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined] # it is exported

from deploy.waiting import wait_while
from schemas.envelope import full_name
from schemas.kafka import client_config
from schemas.settings import Settings
from schemas.topics import TOPICS


def create_topics(settings: Settings) -> None:
    """Create the topics that are not there yet; those that are stay as they are."""
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
    for created in admin.create_topics(wanted, operation_timeout=30).values():
        try:
            created.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise


def wait_for_topics(settings: Settings) -> None:
    """What every worker does first: wait, with growing pauses, for Kafka and all topics."""
    admin = AdminClient(client_config(settings, "wait"))
    wanted = {full_name(topic.name, settings.namespace) for topic in TOPICS}

    def missing() -> str:
        try:
            topics = wanted - set(admin.list_topics(timeout=5).topics)
        except KafkaException as error:
            return f"Kafka does not answer ({error.args[0].str()})"
        return f"`facematch setup` has not created {', '.join(sorted(topics))}" if topics else ""

    wait_while(missing)
