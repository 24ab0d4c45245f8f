"""The topic table: what every topic carries, how it is keyed, divided and kept."""

import re
import zlib
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Generic, TypeVar

from schemas.events.base import Event
from schemas.events.certificates import CompactionCertified
from schemas.events.encodings import EncodingComputed, EncodingErased, EncodingEvent, EncodingRejected
from schemas.events.pairs import (
    DecisionErased,
    DuplicateFound,
    DuplicateRetracted,
    FindingErased,
    IndividualChecked,
    PairDecided,
    PairStatement,
)
from schemas.events.registrations import (
    IndividualCreated,
    IndividualDeleted,
    IndividualErased,
    IndividualUpdated,
    Registration,
)
from schemas.shard import Shard

E_co = TypeVar("E_co", bound=Event, covariant=True)


class Cleanup(StrEnum):
    """Kafka's cleanup.policy."""

    DELETE = "delete"
    COMPACT = "compact"


@dataclass(frozen=True, slots=True)
class Topic(Generic[E_co]):
    """One row of the table, by the type of the events that it carries. Names are without the namespace.

    Of several consumer groups that read a topic, one writes a dead letter of each record that cannot be read: the one
    that `letters_by` names. None: nobody reads the topic as events.
    """

    name: str
    carries: tuple[type[E_co], ...]
    key: str
    purpose: str
    letters_by: str | None
    partitions: int = 6
    partitioned_by_collection: bool = False
    cleanup: Cleanup = Cleanup.DELETE
    retention: timedelta | None = None
    tombstones_kept: timedelta | None = None
    extra_config: dict[str, str] = field(default_factory=dict)

    @property
    def config(self) -> dict[str, str]:
        """The topic's configuration, in Kafka's names and units (milliseconds)."""
        config = {"cleanup.policy": self.cleanup.value, **self.extra_config}
        if self.cleanup is Cleanup.DELETE:
            config["retention.bytes"] = "-1"  # whatever the broker has for others: by time alone
        if self.retention:
            config["retention.ms"] = _milliseconds(self.retention)
        if self.tombstones_kept:
            config["delete.retention.ms"] = _milliseconds(self.tombstones_kept)
        return config


def _milliseconds(duration: timedelta) -> str:
    return str(duration // timedelta(milliseconds=1))


# The most that a consumer hands over as it came: 4 MiB of value and 1 MiB of headers (`schemas.envelope`), and its own.
MOST_LETTER_BYTES = 5 * 2**20
MOST_RECORD_BYTES = 6 * 2**20
_AS_IT_CAME = {"max.message.bytes": str(MOST_RECORD_BYTES)}
COMPACTED_FROM, COMPACTED_WITHIN = timedelta(days=1), timedelta(days=7)
# Not before: what must be published again behind a record (a stale encoding, what a null value hides) is by then.
# And however little else is written: what was erased is gone from the log within the other.
_COMPACTED_BETWEEN = {
    "min.compaction.lag.ms": _milliseconds(COMPACTED_FROM),
    "max.compaction.lag.ms": _milliseconds(COMPACTED_WITHIN),
}
TOMBSTONES_KEPT = timedelta(days=14)
# The broker's clock says when it had a record, not that of who sent it: see schemas.clocks.
_DATED_BY_THE_BROKER = {"message.timestamp.type": "LogAppendTime"}

INDIVIDUALS: Topic[Registration | IndividualDeleted] = Topic(
    name="individuals",
    carries=(IndividualCreated, IndividualUpdated, IndividualDeleted),
    key="collection/individual_id",
    purpose="registrations, updates and deletions, as registration systems publish them",
    letters_by="encoder-cpu",
    retention=timedelta(days=30),
    extra_config=_DATED_BY_THE_BROKER,
)
ESCALATIONS: Topic[Registration] = Topic(
    name="escalations",
    carries=(IndividualCreated, IndividualUpdated),
    key="collection/individual_id",
    purpose="what the CPU pool hands to the GPU pool: the event as it came, and header escalation_reason",
    letters_by="encoder-gpu",
    # Kafka forgets the offsets of a group without members after 7 days (offsets.retention.minutes), and such a pool
    # begins at the beginning. By then what it had encoded is gone: a record lives for a segment longer at most.
    retention=timedelta(days=5),
    extra_config=_AS_IT_CAME | {"segment.ms": _milliseconds(timedelta(days=1))},
)
ENCODINGS: Topic[EncodingEvent] = Topic(
    name="encodings",
    carries=(EncodingComputed, EncodingErased),
    key="collection/individual_id",
    purpose="the truth: the latest embedding of each living individual; a null value erases",
    letters_by="matcher",
    partitioned_by_collection=True,
    cleanup=Cleanup.COMPACT,
    tombstones_kept=TOMBSTONES_KEPT,
    # A stale record (a slow GPU, a replay) may stand behind the right one until the matcher has put the right
    # one behind it again. Compaction waits that long, so that it never keeps the stale one alone.
    extra_config=_COMPACTED_BETWEEN,
)
DUPLICATES: Topic[PairStatement | IndividualChecked | FindingErased] = Topic(
    name="duplicates",
    carries=(DuplicateFound, DuplicateRetracted, IndividualChecked, FindingErased),
    key="pair id; of an IndividualChecked: collection/individual_id, preceded by @2/8/ if it is of shard 2 of 8",
    purpose="what was found: candidates for a person to review; a null value: of somebody who was erased",
    letters_by="sink",
    partitions=ENCODINGS.partitions,  # compaction reads a collection's encodings and findings in one partition each
    partitioned_by_collection=True,
    cleanup=Cleanup.COMPACT,
    tombstones_kept=TOMBSTONES_KEPT,
    # A null value or what the sink restores may stand behind a newer statement until the sink has met it.
    extra_config=_COMPACTED_BETWEEN,
)
DECISIONS: Topic[PairDecided | DecisionErased] = Topic(
    name="decisions",
    carries=(PairDecided, DecisionErased),
    key="pair id",
    purpose="decisions of reviewers about pairs; a null value: of somebody who was erased",
    letters_by="sink",
    partitioned_by_collection=True,
    cleanup=Cleanup.COMPACT,
    tombstones_kept=TOMBSTONES_KEPT,
    extra_config=_COMPACTED_BETWEEN | _DATED_BY_THE_BROKER,
)
ERASURES: Topic[IndividualErased] = Topic(
    name="erasures",
    carries=(IndividualErased,),
    key="keyed hash of collection/individual_id",
    purpose="who was erased, for good, known by keyed hashes alone",
    letters_by="sink",
    partitions=1,
    cleanup=Cleanup.COMPACT,
)
CERTIFICATES: Topic[CompactionCertified] = Topic(
    name="certificates",
    carries=(CompactionCertified,),
    key="the certificate's id",
    purpose="what every compaction found and built",
    letters_by="sink",
    partitions=1,
    extra_config={"retention.ms": "-1"},  # a few lines a night, for good
)
REJECTIONS: Topic[EncodingRejected] = Topic(
    name="rejections",
    carries=(EncodingRejected,),
    key="collection/individual_id",
    purpose="photos that could not be encoded, and why",
    letters_by="sink",
    retention=timedelta(days=30),
)
DEAD_LETTERS: Topic[Event] = Topic(
    name="dead-letters",
    carries=(),
    key="as it came",
    purpose="what could not be read: its bytes and headers as they came, and headers dead_letter_*; and what was done "
    "about it",
    letters_by=None,
    partitions=1,
    retention=timedelta(days=30),
    extra_config=_AS_IT_CAME,
)

DEPLOYMENT: Topic[Event] = Topic(
    name="deployment",
    carries=(),
    key="database",
    purpose="the id of the database that the namespace belongs to, as text without headers; the last counts",
    letters_by=None,
    partitions=1,
    cleanup=Cleanup.COMPACT,
)
SKIPPED: Topic[Event] = Topic(
    name="skipped",
    carries=(),
    key="skipped/reader/position, or tried/group/topic/partition",
    purpose="records that a reader passes over, and what each had in hand when it died: see schemas/attempts.py",
    letters_by=None,
    partitions=1,
    cleanup=Cleanup.COMPACT,
)

TOPICS: tuple[Topic[Event], ...] = (
    INDIVIDUALS,
    ESCALATIONS,
    ENCODINGS,
    DUPLICATES,
    DECISIONS,
    ERASURES,
    CERTIFICATES,
    REJECTIONS,
    DEAD_LETTERS,
    DEPLOYMENT,
    SKIPPED,
)

EVENT_TYPES: dict[str, type[Event]] = {event.__name__: event for topic in TOPICS for event in topic.carries}

_BY_NAME = {topic.name: topic for topic in TOPICS}
_HOME = {event: topic for topic in reversed(TOPICS) for event in topic.carries}


def topic_of(event: type[Event]) -> Topic[Event]:
    """The topic on which events of that type are published."""
    return _HOME[event]


def topic_named(name: str) -> Topic[Event]:
    """The row of that name. Raises KeyError."""
    return _BY_NAME[name]


@dataclass(frozen=True, slots=True)
class ConsumerGroup:
    """Processes that share the work on some topics. The name is without the namespace."""

    name: str
    reads: tuple[Topic[Event], ...]


CPU_POOL = ConsumerGroup("encoder-cpu", (INDIVIDUALS,))
GPU_POOL = ConsumerGroup("encoder-gpu", (ESCALATIONS,))
MATCHER = ConsumerGroup("matcher", (ENCODINGS,))
SINK = ConsumerGroup("sink", (INDIVIDUALS, ENCODINGS, REJECTIONS, DUPLICATES, DECISIONS, ERASURES, CERTIFICATES))

CONSUMER_GROUPS = (CPU_POOL, GPU_POOL, MATCHER, SINK)


def matcher_of(shard: Shard) -> ConsumerGroup:
    """The group of a shard's matcher: every shard reads everything. The only one is MATCHER."""
    if shard.count == 1:
        return MATCHER
    return ConsumerGroup(f"{MATCHER.name}-{shard.number}-of-{shard.count}", MATCHER.reads)


def shard_of(group: str) -> Shard | None:
    """The shard whose matcher's group has that name; None of any other. The inverse of `matcher_of`."""
    if group == MATCHER.name:
        return Shard()
    parts = re.fullmatch(rf"{MATCHER.name}-([0-9]{{1,4}})-of-([0-9]{{1,4}})", group)
    try:
        return None if parts is None else Shard(int(parts[1]), int(parts[2]))
    except ValueError:
        return None


def partition_of(collection: str, partitions: int) -> int:
    """The partition of a collection: CRC-32 of its name, modulo the number of partitions.

    The same as librdkafka's partitioner "consistent" with the collection as key.
    """
    return zlib.crc32(collection.encode()) % partitions
