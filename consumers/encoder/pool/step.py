"""An arroyo step that answers records with the help of threads and processes, and commits what is durably answered.

arroyo's own multiprocessing step hands over batches, and hangs in `Pool.terminate` when one of its processes
was killed; its dead letters may be dropped (arroyo 2.48, processor.py: `_handle_invalid_message` logs "dropping"
and goes on; `DlqPolicyWrapper.produce` never looks at the outcome). Here a dead letter is an answer like any
other, and an answer that is not acknowledged by the broker stops the process with nothing committed.
"""

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

from arroyo.backends.kafka import KafkaPayload
from arroyo.processing.strategies import MessageRejected, ProcessingStrategy
from arroyo.types import BrokerValue, Message
from confluent_kafka import KafkaError

from consumers.encoder.pool.task_pool import DiedError, Taken, TaskPool
from runtime.process.background import Failure
from runtime.servers.publisher import Publisher, PublishError
from runtime.telemetry.health import HEALTH
from schemas.envelope import Record

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Done:
    """A record, the answers to it that the broker has, and when it was begun and answered, in ns since 1970."""

    record: Record
    answers: list[Record]
    begun: int
    answered: int


@dataclass(frozen=True, slots=True)
class Work(Generic[T]):
    """What is done with a record: `take` in a thread of `threads`, and the task that it leaves in `pool`.

    `give_up` answers a task that its process dies of. `tell` is told of what is done.
    """

    threads: ThreadPoolExecutor
    take: Callable[[Record], Taken[T, Record]]
    pool: TaskPool[T, Record]
    give_up: Callable[[T], Record]
    tell: Callable[[Done], None] = lambda _: None


@dataclass(eq=False)
class _UnderWay:
    message: Message[KafkaPayload]
    record: Record
    begun: int = field(default_factory=time.time_ns)
    answered: int = 0
    published: list[Record] = field(default_factory=list)
    answers: int | None = None  # not known before it is taken
    acknowledged: list[None] = field(default_factory=list)  # one for each: threads may append at the same time
    failure: Failure = field(default_factory=Failure)  # of callbacks: executors swallow what these raise

    @property
    def is_published(self) -> bool:
        return len(self.published) == self.answers

    @property
    def is_done(self) -> bool:
        return len(self.acknowledged) == self.answers


class AnswerInPool(ProcessingStrategy[KafkaPayload], Generic[T]):
    """Each record is answered by records, or by none, published as soon as they are there.

    Messages go on to the next step, which commits, in the order of their submission, each once its answers
    are acknowledged. `poll` raises what went wrong in a thread, in a process, or at the broker (PublishError).
    The loop is said to be alive unless the first has been that for `longest_s` without being answered.
    """

    def __init__(
        self,
        work: Work[T],
        publisher: Publisher,
        to_record: Callable[[BrokerValue[KafkaPayload]], Record],
        next_step: ProcessingStrategy[KafkaPayload],
        limit: int,
        longest_s: float,
    ) -> None:
        self._work = work
        self._publisher = publisher
        self._to_record = to_record
        self._next_step = next_step
        self._limit = limit
        self._longest_s = longest_s
        self._first_since = 0.0
        self._under_way: deque[_UnderWay] = deque()
        self._closed = False

    def submit(self, message: Message[KafkaPayload]) -> None:
        """Begin with a message. Raises MessageRejected while `limit` messages are under way."""
        assert not self._closed
        if len(self._under_way) >= self._limit:
            raise MessageRejected
        assert isinstance(message.value, BrokerValue)
        item = _UnderWay(message, self._to_record(message.value))
        taken = self._work.threads.submit(self._work.take, item.record)
        if not self._under_way:
            self._first_since = time.monotonic()
        self._under_way.append(item)
        taken.add_done_callback(partial(self._taken, item))

    # The following run in threads of the executors: arroyo's loop may be waiting for its next message.

    def _taken(self, item: _UnderWay, future: "Future[Taken[T, Record]]") -> None:
        if future.cancelled():
            return
        with item.failure:
            taken = future.result()
            item.answers = len(taken.answers) + (taken.task is not None)
            for answer in taken.answers:
                self._publish(item, answer)
            if taken.task is not None:
                self._work.pool.submit(taken.task, partial(self._answered, item, taken.task))

    def _answered(self, item: _UnderWay, task: T, answer: Record | BaseException) -> None:
        with item.failure:
            if isinstance(answer, DiedError):
                answer = self._work.give_up(task)
            if isinstance(answer, BaseException):
                raise answer
            self._publish(item, answer)

    def _publish(self, item: _UnderWay, answer: Record) -> None:
        def delivered(error: KafkaError | None) -> None:
            with item.failure:
                if error is not None:
                    raise PublishError(f"the broker refused an answer: {error.str()}")
            item.acknowledged.append(None)

        item.published.append(answer)
        item.answered = time.time_ns()
        self._publisher.publish(answer, delivered)

    def poll(self) -> None:
        """Pass on what is answered and acknowledged."""
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
            self._work.tell(Done(first.record, first.published, first.begun, first.answered or time.time_ns()))
            self._next_step.submit(first.message)
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
