"""An arroyo step that answers records with the help of threads and processes, and commits what is durably answered.

arroyo's own multiprocessing step hands over batches, and hangs in `Pool.terminate` when one of its processes
was killed; its dead letters may be dropped (arroyo 2.48, processor.py: `_handle_invalid_message` logs "dropping"
and goes on; `DlqPolicyWrapper.produce` never looks at the outcome). Here a dead letter is an answer like any
other, and an answer that is not acknowledged by the broker stops the process with nothing committed.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

from arroyo.backends.kafka import KafkaPayload
from arroyo.processing.strategies import MessageRejected, ProcessingStrategy
from arroyo.types import BrokerValue, Message
from confluent_kafka import KafkaError

from consumers.encoder.answers import Answer
from consumers.encoder.pool.task_pool import TaskFailedError, TaskPool
from runtime.process.background import Failure
from runtime.servers.attempts import Attempts
from runtime.servers.publisher import Publisher, PublishError
from runtime.telemetry.health import HEALTH
from schemas.envelope import StoredRecord

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Preparation(Generic[T]):
    """The first part of a record's work: the answers that are there at once, and the task that is left, if any."""

    answers: Sequence[Answer] = ()
    task: T | None = None


@dataclass(frozen=True, slots=True)
class AnsweredRecord:
    """A record, the answers to it that the broker has, and when it was begun and answered, in ns since 1970."""

    record: StoredRecord
    answers: list[Answer]
    begun: int
    answered: int


@dataclass(frozen=True, slots=True)
class Work(Generic[T, R]):
    """The work on a record: `prepare` in a thread of `threads`, then its task in a process of `pool`.

    `answer` makes an answer of a task's result, or of a TaskFailedError where its process died of it. `attempts` knows
    what this worker must not die of again. `report` is called for each record whose answers the broker has, in the
    order of the records.
    """

    threads: ThreadPoolExecutor
    prepare: Callable[[StoredRecord], Preparation[T]]
    pool: TaskPool[T, R]
    answer: Callable[[StoredRecord, T, R | TaskFailedError], Answer]
    attempts: Attempts
    report: Callable[[AnsweredRecord], None] = lambda _: None


@dataclass(eq=False)
class _UnderWay:
    """A record between `submit` and its commit."""

    message: Message[KafkaPayload]
    record: StoredRecord
    begun: int = field(default_factory=time.time_ns)
    answered: int = 0
    ready: list[Answer] = field(default_factory=list)  # the answers so far, of which the first are published
    published: list[Answer] = field(default_factory=list)
    answers: int | None = None  # how many there will be: not known before it is prepared
    acknowledged: list[None] = field(default_factory=list)  # one for each: threads may append at the same time
    failure: Failure = field(default_factory=Failure)  # of callbacks: executors swallow what these raise

    @property
    def is_published(self) -> bool:
        return len(self.published) == self.answers

    @property
    def is_done(self) -> bool:
        return len(self.acknowledged) == self.answers


class AnswerInPool(ProcessingStrategy[KafkaPayload], Generic[T, R]):
    """Answers each record with records, or with none, and publishes them as soon as they are there.

    But answers to records of one key are published in the order of these records, whichever is ready first.

    Messages go on to the next step, which commits, in the order of their submission, each once its answers
    are acknowledged. `poll` raises what went wrong in a thread, in a process, or at the broker (PublishError).
    The loop beats unless the first has been that for `longest_s` without being answered.
    """

    def __init__(
        self,
        work: Work[T, R],
        publisher: Publisher,
        to_record: Callable[[BrokerValue[KafkaPayload]], StoredRecord],
        next_step: ProcessingStrategy[KafkaPayload],
        limit: int,
        longest_s: float,
    ) -> None:
        self._work = work
        self._attempts = work.attempts
        self._publisher = publisher
        self._to_record = to_record
        self._next_step = next_step
        self._limit = limit
        self._longest_s = longest_s
        self._first_since = 0.0
        self._under_way: deque[_UnderWay] = deque()
        self._of_key: dict[bytes | None, deque[_UnderWay]] = {}  # under way and not published, in order
        self._publishing = threading.Lock()
        self._closed = False

    def submit(self, message: Message[KafkaPayload]) -> None:
        """Begin with a message. Raises MessageRejected while `limit` messages are under way.

        While records are looked at closely, one alone is under way.
        """
        assert not self._closed
        if len(self._under_way) >= (1 if self._attempts.is_careful else self._limit):
            raise MessageRejected
        assert isinstance(message.value, BrokerValue)
        with self._attempts.working():
            (record,) = self._attempts.take([self._to_record(message.value)])
        item = _UnderWay(message, record)
        with self._publishing:
            self._of_key.setdefault(item.record.key, deque()).append(item)
        prepared = self._work.threads.submit(self._work.prepare, item.record)
        if not self._under_way:
            self._first_since = time.monotonic()
        self._under_way.append(item)
        prepared.add_done_callback(partial(self._prepared, item))

    # The following run in threads of the executors: arroyo's loop may be waiting for its next message.

    def _prepared(self, item: _UnderWay, future: "Future[Preparation[T]]") -> None:
        if future.cancelled():
            return
        with item.failure:
            preparation = future.result()
            item.answers = len(preparation.answers) + (preparation.task is not None)
            self._publish_in_order(item, preparation.answers)
            if preparation.task is not None:
                self._work.pool.submit(preparation.task, partial(self._finished, item, preparation.task))

    def _finished(self, item: _UnderWay, task: T, result: R | BaseException) -> None:
        with item.failure:
            if isinstance(result, BaseException) and not isinstance(result, TaskFailedError):
                raise result
            self._publish_in_order(item, [self._work.answer(item.record, task, result)])

    def _publish_in_order(self, item: _UnderWay, answers: Sequence[Answer]) -> None:
        """Publish what is ready of the first record of its key, and of those behind it once it has all its answers."""
        with self._publishing:
            item.ready.extend(answers)
            of_key = self._of_key[item.record.key]
            while of_key:
                first = of_key[0]
                for answer in first.ready[len(first.published) :]:
                    self._publish(first, answer)
                if not first.is_published:
                    return
                of_key.popleft()
            del self._of_key[item.record.key]

    def _publish(self, item: _UnderWay, answer: Answer) -> None:
        def delivered(error: KafkaError | None) -> None:
            with item.failure:
                if error is not None:
                    raise PublishError(f"the broker refused an answer: {error.str()}")
            item.acknowledged.append(None)

        item.published.append(answer)
        item.answered = time.time_ns()
        self._publisher.publish(answer.record, delivered)

    def poll(self) -> None:
        """Pass on what is answered and acknowledged."""
        with self._attempts.working():
            self._poll()

    def _poll(self) -> None:
        self._work.pool.poll()
        self._publisher.poll()
        if not self._under_way:
            HEALTH.beat()
        while self._under_way:
            first = self._under_way[0]
            # Else a thread or a process has it, and may hang.
            if first.is_published or time.monotonic() - self._first_since < self._longest_s:
                HEALTH.beat()
            first.failure.check()
            if not first.is_done:
                break
            self._under_way.popleft()
            self._first_since = time.monotonic()
            self._work.report(
                AnsweredRecord(first.record, first.published, first.begun, first.answered or time.time_ns())
            )
            self._next_step.submit(first.message)
            self._attempts.answered([first.record])
        self._next_step.poll()

    def close(self) -> None:
        """Accept nothing more."""
        self._closed = True

    def terminate(self) -> None:
        """Drop what is under way; it is not committed, and comes again."""
        self._closed = True
        self._under_way.clear()
        self._next_step.terminate()

    def join(self, timeout: float | None = None) -> None:
        """Wait up to `timeout` seconds for what is under way; the rest is not committed, and comes again."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._under_way and (deadline is None or time.monotonic() < deadline):
            self.poll()
            self._publisher.poll(0.02)
        self._under_way.clear()
        self._next_step.close()
        self._next_step.join(timeout)
