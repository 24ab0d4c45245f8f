"""Reads the topic `dead-letters`: the letters, and what was done about each."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime

from runtime.servers.log import Span, TopicLog
from schemas.envelope import StoredRecord, kafka_time
from schemas.faults import UserFault
from schemas.letters import Letter, Settled, read_letter, removed_records
from schemas.settings import Settings
from schemas.topics import DEAD_LETTERS

OPEN = "open"


class UnknownLetterError(UserFault):
    """There is no letter of that name, or Kafka keeps it no longer."""


@dataclass(frozen=True, slots=True)
class FiledLetter:
    """A letter without its bytes, which may be many.

    `offset`: its offset on `dead-letters`; `failed`: how often the message could not be read, also when it was sent
    again; `settled`: what was done about it last, at `settled_at`; None while it is open.
    """

    name: str
    offset: int
    topic: str
    at: datetime
    published_at: datetime
    consumer: str
    error: str
    failed: int
    size: int
    settled: Settled | None = None
    settled_at: datetime | None = None

    @property
    def state(self) -> str:
        """ "open", "redriven" or "discarded"."""
        return OPEN if self.settled is None else str(self.settled.outcome)


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """A filter of letters: by a part of the error, ignoring case; by topic; by when they were written.

    None stands for any. Settled letters match only with `settled`.
    """

    reason: str | None = None
    topic: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    settled: bool = False

    def passes(self, letter: FiledLetter) -> bool:
        """Whether a letter passes the filter."""
        return (
            (self.settled or letter.settled is None)
            and (self.reason is None or self.reason.lower() in letter.error.lower())
            and self.topic in (None, letter.topic)
            and (self.since is None or self.since <= letter.at)
            and (self.until is None or letter.at < self.until)
        )


def file(records: Iterable[StoredRecord]) -> list[FiledLetter]:
    """The letters among records of `dead-letters`, the oldest first, each once, as it was written last."""
    letters: dict[str, FiledLetter] = {}
    settled: dict[str, tuple[Settled, datetime]] = {}
    for record in records:
        match read_letter(record):
            case Letter() as letter:
                before = letters.pop(letter.name, None)
                letters[letter.name] = _together(before, _filed(letter, record.offset))
            case Settled() as mark:
                settled[mark.letter] = mark, kafka_time(record.timestamp)
    for name in letters.keys() & settled.keys():
        mark, at = settled[name]
        letters[name] = replace(letters[name], settled=mark, settled_at=at)
    return list(letters.values())


def read_all(settings: Settings, progress: Callable[[int, int], None] = lambda _done, _all: None) -> list[FiledLetter]:
    """All letters of the topic. Raises MissingTopicsError."""

    def records(log: TopicLog) -> Iterator[StoredRecord]:
        span = log.span(0)
        for batch in log.read({0: span}):
            yield from batch
            progress(batch[-1].offset + 1 - span.begin, span.size)

    with TopicLog(settings, DEAD_LETTERS, "letters") as log:
        return file(records(log))


def choose(letters: Sequence[FiledLetter], names: Sequence[str], choice: LetterFilter) -> list[FiledLetter]:
    """The letters with these names, settled or not; without names, those that pass the filter.

    Raises UnknownLetterError.
    """
    if not names:
        return [letter for letter in letters if choice.passes(letter)]
    by_name = {letter.name: letter for letter in letters}
    for name in names:
        if name not in by_name:
            raise UnknownLetterError(
                f"there is no letter {name}, or no longer; `facematch dead-letters list --all` shows all"
            )
    return [by_name[name] for name in dict.fromkeys(names)]


def read_bytes(settings: Settings, letters: Sequence[FiledLetter]) -> Iterator[tuple[FiledLetter, Letter]]:
    """The letters with their bytes, in the order of the topic."""
    wanted = {letter.offset: letter for letter in letters}
    if not wanted:
        return
    with (
        TopicLog(settings, DEAD_LETTERS, "letters") as log,
        closing(log.read({0: Span(min(wanted), max(wanted) + 1)})) as read,
    ):
        for batch in read:
            for record in batch:
                if record.offset in wanted:
                    letter = read_letter(record)
                    if isinstance(letter, Letter):
                        yield wanted[record.offset], letter


def _together(before: FiledLetter | None, letter: FiledLetter) -> FiledLetter:
    """A letter, with all who had not read what was removed; of any other message one alone writes letters."""
    if before is None or not removed_records(letter.error) or letter.consumer in before.consumer.split(", "):
        return letter
    return replace(letter, consumer=f"{before.consumer}, {letter.consumer}")


def _filed(letter: Letter, offset: int) -> FiledLetter:
    record = letter.record
    return FiledLetter(
        letter.name,
        offset,
        record.topic,
        kafka_time(letter.at),
        kafka_time(record.timestamp),
        letter.consumer,
        letter.error,
        letter.redriven + 1,
        len(record.value or b""),
    )
