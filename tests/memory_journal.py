"""The topic `skipped` in memory: what a reader notes there survives its process."""

from collections.abc import Sequence

from runtime.servers.attempts import Attempts, Reader
from schemas.attempts import Noted
from schemas.envelope import Record, Source, StoredRecord
from schemas.letters import Letter, read_letter
from schemas.topics import DEAD_LETTERS, SKIPPED
from tests.records import stored


class MemoryJournal:
    """Keeps what is written. `attempts` makes those of a process that starts."""

    def __init__(self, reader: Reader | None = None) -> None:
        self.reader = reader or Reader("reader", "reader", Source.SINK)
        self.records: list[StoredRecord] = []

    def read(self) -> Noted:
        noted = Noted(self.reader.group, self.reader.name)
        noted.add(record for record in self.records if record.topic == SKIPPED.name)
        return noted

    def write(self, records: Sequence[Record]) -> None:
        self.records += [stored(record, partition=0, offset=0, timestamp=0) for record in records]

    withdraw = write

    @property
    def letters(self) -> list[str]:
        """The positions of the records of which dead letters were written."""
        found = [read_letter(record) for record in self.records if record.topic == DEAD_LETTERS.name]
        return [letter.name for letter in found if isinstance(letter, Letter)]

    def attempts(self) -> Attempts:
        """Those of a process that starts now."""
        return Attempts(self.reader, self)
