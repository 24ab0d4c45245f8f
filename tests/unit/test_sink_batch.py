"""A batch is written before it counts as written: letters first, then the tables, and nothing of it where one fails."""

from dataclasses import replace

import pytest

from consumers.sink.batch import BatchWriter, Events, Publish, Remaining
from schemas.envelope import Record, announce, encode
from schemas.events.encodings import EncodingRejected, RejectionReason
from schemas.events.registrations import IndividualCreated, Photo
from schemas.topics import DEAD_LETTERS
from tests.records import stored

READABLE = stored(
    encode(
        announce(
            EncodingRejected(
                collection="c",
                individual_id="a",
                revision=1,
                reason=RejectionReason.NO_FACE,
                detail="none",
                event_id="x",
            ),
            "test",
        )
    )
)
UNREADABLE = stored(replace(READABLE, value=b"{"), partition=2, offset=5, timestamp=7)
OF_THE_ENCODER = stored(
    encode(
        announce(
            IndividualCreated(collection="c", individual_id="a", revision=1, photo=Photo(uri="file:///a.jpg")), "test"
        )
    )
)


class Servers:
    """Stands in for Postgres and Kafka: what was done there, in order."""

    def __init__(self) -> None:
        self.done: list[tuple[str, list[str]]] = []
        self.refuses: str | None = None

    def write(self, events: Events, _publish: Publish) -> Remaining:
        self._do("tables", [type(message.event).__name__ for message, _ in events])
        return Remaining(events, [])

    def publish(self, records: list[Record]) -> None:
        self._do("Kafka", [record.topic for record in records])

    def _do(self, where: str, what: list[str]) -> None:
        if where == self.refuses:
            raise ConnectionError(where)
        self.done.append((where, what))


def test_letters_are_acknowledged_before_the_tables_are_written() -> None:
    servers = Servers()
    written = BatchWriter(servers, servers.publish).write([UNREADABLE, READABLE])
    assert servers.done == [("Kafka", [DEAD_LETTERS.name]), ("tables", ["EncodingRejected"])]
    assert [message.event.key for message, _ in written.events] == ["c/a"]
    assert [record for record, _ in written.letters] == [UNREADABLE]


def test_what_another_worker_writes_the_letter_of_is_left_out() -> None:
    servers = Servers()
    assert BatchWriter(servers, servers.publish).write([replace(OF_THE_ENCODER, value=b"{")]).letters == []


@pytest.mark.parametrize("refuses", ["Kafka", "tables"])
def test_what_fails_is_raised(refuses: str) -> None:
    servers = Servers()
    servers.refuses = refuses
    with pytest.raises(ConnectionError, match=refuses):
        BatchWriter(servers, servers.publish).write([UNREADABLE, READABLE])
