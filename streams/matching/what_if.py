"""What matching would find with other settings: its core runs over a slice of the log and publishes nothing. Pure.

Records before the slice are applied and not compared, as by a matcher that is started there. All is searched exactly:
there are no segments.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from schemas.envelope import StoredRecord, UnreadableError, decode_as_sent
from schemas.events.base import key_prefix
from schemas.events.encodings import EncodingAsSent
from schemas.events.pairs import DuplicateFound, IndividualChecked, PairEvent, Version
from streams.gallery.gallery import Gallery
from streams.gallery.reach import check_reach
from streams.matching.match import Rules, match, restore


@dataclass(frozen=True, slots=True)
class LogSlice:
    """A slice of a partition's log: from `begin` and the first record at `since` or later, to before `end` and `until`.

    Offsets and times are Kafka's. Only the records of `collection`, if one is named.
    """

    collection: str | None = None
    begin: int = 0
    end: int | None = None
    since: datetime | None = None
    until: datetime | None = None

    def split(self, records: Iterable[StoredRecord]) -> Iterator[tuple[StoredRecord, bool]]:
        """The records up to the end of the slice, in order, each with whether it is in the slice."""
        prefix = b"" if self.collection is None else key_prefix(self.collection).encode()
        since, until = _milliseconds(self.since), _milliseconds(self.until)
        begun = False
        for record in records:
            begun = begun or (record.offset >= self.begin and (since is None or record.timestamp >= since))
            is_behind = self.end is not None and record.offset >= self.end
            if is_behind or (until is not None and record.timestamp >= until):
                return
            if (record.key or b"").startswith(prefix):
                yield record, begun


class SupposedPair(NamedTuple):
    """Two individuals, the smaller id first."""

    collection: str
    a: str
    b: str


class SupposedFinding(NamedTuple):
    """The distance of a pair, and the encoder by which."""

    encoder: str
    distance: float


@dataclass(slots=True)
class SupposedOutcome:
    """What came of a run. `pairs`: those that a newcomer of the part was found to be in, and that hold at its end.

    By collection: how many `newcomers` were compared; how many were `truncated`, in reach of more than are published.
    """

    pairs: dict[SupposedPair, SupposedFinding] = field(default_factory=dict)
    newcomers: Counter[str] = field(default_factory=Counter)
    truncated: Counter[str] = field(default_factory=Counter)

    def add(self, other: "SupposedOutcome") -> None:
        """Take in that of another partition."""
        self.pairs |= other.pairs
        self.newcomers += other.newcomers
        self.truncated += other.truncated


class SupposedRun:
    """A matcher's core, under some rules. `encoder`: embeddings of others are left out."""

    def __init__(self, rules: Rules, encoder: str | None = None) -> None:
        self._rules, self._encoder = rules, encoder
        self._gallery = Gallery()
        self._words: dict[
            tuple[SupposedPair, str], tuple[Version, float | None]
        ] = {}  # by encoder: the version, and distance if found
        self._newcomers: Counter[str] = Counter()
        self._truncated: Counter[str] = Counter()
        self.has_seen_encoder = encoder is None

    def apply(self, records: Sequence[StoredRecord]) -> None:
        """Take in what stands before the part."""
        restore(self._gallery, self._chosen(records), self._rules.erased)

    def match(self, records: Sequence[StoredRecord]) -> None:
        """Compare a batch. Raises TooManyPairsError where the threshold leads to more than can be held."""
        in_reach: list[int] = []
        threshold = 0.0
        for message in match(self._gallery, self._chosen(records), self._rules).messages:
            event = message.event
            if isinstance(event, PairEvent):
                self._hear(event, message.time)
                threshold = max(threshold, event.threshold if isinstance(event, DuplicateFound) else 0.0)
            elif isinstance(event, IndividualChecked):
                self._newcomers[event.collection] += 1
                self._truncated[event.collection] += event.truncated
                in_reach.append(event.duplicates)
        if in_reach:
            check_reach(threshold, sum(in_reach) / len(in_reach))

    def outcome(self) -> SupposedOutcome:
        """What came of it so far."""
        pairs = {
            pair: SupposedFinding(encoder, distance)
            for (pair, encoder), (_, distance) in self._words.items()
            if distance is not None
        }
        return SupposedOutcome(pairs, self._newcomers, self._truncated)

    def _hear(self, event: PairEvent, time: datetime) -> None:
        at = SupposedPair(event.collection, event.a.individual_id, event.b.individual_id), event.encoder
        version = event.version(time)
        if at not in self._words or version > self._words[at][0]:
            self._words[at] = version, event.distance if isinstance(event, DuplicateFound) else None

    def _chosen(self, records: Sequence[StoredRecord]) -> Sequence[StoredRecord]:
        return records if self._encoder is None else [record for record in records if self._is_chosen(record)]

    def _is_chosen(self, record: StoredRecord) -> bool:
        try:
            event = decode_as_sent(record)
        except UnreadableError:
            return False
        if not isinstance(event, EncodingAsSent):
            return True
        self.has_seen_encoder |= event.encoder == self._encoder
        return event.encoder == self._encoder


class PairChange(NamedTuple):
    """A pair that only one of two runs found."""

    gained: bool
    pair: SupposedPair
    found: SupposedFinding


def changes(now: SupposedOutcome, then: SupposedOutcome) -> list[PairChange]:
    """The pairs gained and lost from one to the other, the nearest first."""
    found = [
        *(PairChange(True, pair, then.pairs[pair]) for pair in then.pairs.keys() - now.pairs.keys()),
        *(PairChange(False, pair, now.pairs[pair]) for pair in now.pairs.keys() - then.pairs.keys()),
    ]
    return sorted(found, key=lambda change: (change.found.distance, change.pair))


def batches(records: Iterable[StoredRecord], most: int) -> Iterator[list[StoredRecord]]:
    """In batches that grow: where everyone is within the threshold of everyone, that shows before memory is full."""
    batch: list[StoredRecord] = []
    limit = 1
    for record in records:
        batch.append(record)
        if len(batch) >= limit:
            yield batch
            batch, limit = [], min(2 * limit, most)
    if batch:
        yield batch


def _milliseconds(time: datetime | None) -> float | None:
    return None if time is None else time.timestamp() * 1000
