"""Sends events again: from `individuals`, `encodings` or a file, so that nothing is sent twice and nobody is delayed.

**What was sent is what stands in the log.** Every event keeps its key, value and headers, and gets two more:
`replay_id`, which all that follows from it carries on, and `replay_position`, where it stood in what was chosen from.
A replay that was interrupted, at any point and however, reads its topics from where they ended when it began, and sends
what is not there. (What a broker had received from a process that was killed, and had not written by the time that
the next one has started and read the log's end, would be there twice.)

**Live events go first**, although they share topics with the replay. Ten times a second it looks where the topics end
and what each consumer group (encoder pools, matchers, sink) has committed: a group's delay is the age of the oldest
look whose ends it has not reached. The rate grows while all are below half a second, falls once one is not, and nothing
is sent until they are again. Whoever is registered meanwhile has about half a second of replayed events before them at
most. Groups commit five times a second, so that this can be seen. While live traffic alone keeps a group so busy, the
replay waits.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

from confluent_kafka import KafkaError

from producers.replay.chooser import ChosenEvent
from producers.replay.groups import CLIENT
from producers.replay.pace import Pace
from producers.replay.plan import ReplayPlan
from producers.replay.selection import SelectionError
from runtime.servers.log import Span, TopicLog
from runtime.servers.publisher import Publisher
from schemas.envelope import REPLAY_ID, Record, StoredRecord
from schemas.events.base import Event
from schemas.faults import UserFault
from schemas.settings import Settings
from schemas.topics import COMPACTED_FROM, Cleanup, Topic, topic_named

POSITION = "replay_position"
_POLL_EVERY = 100
_LAST_WAIT_S = 10.0


class TooOldError(UserFault):
    """What a replay sent may be gone from the log: it cannot be gone on with."""


class _StoppedError(Exception):
    pass


@dataclass(slots=True)
class Sent:
    """How a replay stands: events acknowledged by Kafka, refused by it (where they stood, and why), sent before."""

    acknowledged: int = 0
    before: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    stopped: bool = False
    unknown: int = 0  # handed over and neither acknowledged nor refused when it was stopped
    seconds: float = 0.0


class Sender:
    """Sends what is chosen at the pace that is set, and knows of each whether the broker has it.

    `stopping`, once set, ends it. `check` is called again and again, and may raise.
    """

    def __init__(
        self,
        settings: Settings,
        replay_id: str,
        pace: Pace,
        stopping: threading.Event,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._replay_id = replay_id
        self._pace = pace
        self._stopping = stopping
        self._check = check
        self._publisher = Publisher(settings, CLIENT)
        self._handed_over = 0
        self.sent = Sent()

    def send(self, chosen: Iterable[ChosenEvent], already: set[str]) -> Sent:
        """Send all that is not there already; return once each is acknowledged or refused."""
        began = time.monotonic()
        try:
            for one in chosen:
                position = one.record.position
                if position in already:
                    self.sent.before += 1
                    continue
                self._wait()
                record = replayed(one, self._replay_id)
                self._publisher.publish(record, partial(self._delivered, position), self._raise_if_stopped)
                self._handed_over += 1
                if self._handed_over % _POLL_EVERY == 0:
                    self._publisher.poll()
            while self._settled < self._handed_over:
                self._raise_if_stopped()
                self._publisher.poll(0.1)
        except _StoppedError:
            self._publisher.flush(_LAST_WAIT_S)
            self.sent.stopped = True
        self.sent.unknown = self._handed_over - self._settled
        self.sent.seconds = time.monotonic() - began
        return self.sent

    @property
    def _settled(self) -> int:
        return self.sent.acknowledged + len(self.sent.refused)

    def _wait(self) -> None:
        while pause := self._pace.take():
            self._publisher.poll(pause)
            self._raise_if_stopped()

    def _raise_if_stopped(self) -> None:
        self._check()
        if self._stopping.is_set():
            raise _StoppedError

    def _delivered(self, position: str, error: KafkaError | None) -> None:
        if error is None:
            self.sent.acknowledged += 1
        else:
            self.sent.refused.append((position, error.str()))


def replayed(one: ChosenEvent, replay_id: str) -> Record:
    """The record as it is sent again: to the partition that it stood in, or to that of its key or collection."""
    record = one.record
    kept = tuple((name, value) for name, value in record.headers if name not in (REPLAY_ID, POSITION))
    partition = record.partition if isinstance(record, StoredRecord) else None
    by_collection = topic_named(record.topic).partitioned_by_collection and partition is None
    return Record(
        record.topic,
        record.key,
        record.value,
        (*kept, (REPLAY_ID, replay_id.encode()), (POSITION, record.position.encode())),
        partition=partition,
        partition_by=one.collection if by_collection else None,
    )


def ends_of(settings: Settings, topics: Iterable[Topic[Event]]) -> dict[str, dict[int, int]]:
    """Where topics end."""
    found = {}
    for topic in topics:
        with TopicLog(settings, topic, CLIENT) as log:
            found[topic.name] = {partition: span.end for partition, span in log.spans().items()}
    return found


def sent_before(settings: Settings, plan: ReplayPlan) -> set[str]:
    """The positions of what a replay has sent already, as its topics tell. Raises TooOldError."""
    return {position for name, ends in plan.ends.items() for position in _sent_to(settings, plan, name, ends)}


def _sent_to(settings: Settings, plan: ReplayPlan, name: str, ends: dict[int, int]) -> Iterator[str]:
    topic = topic_named(name)
    with TopicLog(settings, topic, CLIENT) as log:
        spans = log.spans()
        is_compacted = topic.cleanup is Cleanup.COMPACT and plan.age() > COMPACTED_FROM
        if is_compacted or any(spans[partition].begin > end for partition, end in ends.items()):
            raise TooOldError(
                f"{plan.replay_id} began {plan.began_at:%Y-%m-%d %H:%M} (UTC), and what it sent may be gone from "
                f"{name} by now: begin a new replay"
            )
        for batch in log.read({partition: Span(end, spans[partition].end) for partition, end in ends.items()}):
            for record in batch:
                headers = dict(record.headers)
                if headers.get(REPLAY_ID) == plan.replay_id.encode():
                    yield (headers.get(POSITION) or b"").decode()


def check_file(plan: ReplayPlan, digest: str | None) -> None:
    """Raise SelectionError if the file is not what it was when the replay began."""
    if plan.digest != digest:
        raise SelectionError(f"{plan.selection.file} has changed since the replay began: begin a new one with it")
