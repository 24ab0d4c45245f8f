"""What a deployment has noted of itself on the topic `deployment`: its database, and the encoder that it began with."""

from runtime.servers.log import TopicLog
from runtime.servers.publisher import Publisher
from schemas.envelope import Record
from schemas.settings import Settings
from schemas.topics import DEPLOYMENT

DATABASE, ENCODER = "database", "encoder"


def read_notes(settings: Settings, client: str) -> dict[str, str]:
    """What is noted, by what it is of; the last counts. A broker that is away is waited for.

    `client` begins with the name of a consumer group whose user asks: Kafka lets nobody else read by it.
    """
    notes: dict[str, str] = {}
    with TopicLog(settings, DEPLOYMENT, client) as log:
        for batch in log.read({0: log.span(0)}):
            for record in batch:
                if record.key is not None and record.value is not None:
                    notes[record.key.decode(errors="replace")] = record.value.decode(errors="replace")
    return notes


def write_note(settings: Settings, client: str, of: str, what: str) -> None:
    """Note something in place of what was noted of it before; returns once Kafka has it."""
    record = Record(DEPLOYMENT.name, of.encode(), what.encode(), (), partition=0)
    Publisher(settings, client).publish_all([record])
