"""An arroyo step that handles records in a pool of processes and commits what is durably answered.

arroyo's own multiprocessing step hands over batches, and hangs in `Pool.terminate` when one of its processes
was killed; its dead letters may be dropped (arroyo 2.48, processor.py: `_handle_invalid_message` logs "dropping"
and goes on; `DlqPolicyWrapper.produce` never looks at the outcome). Here a dead letter is an answer like any
other, and an answer that is not acknowledged by the broker stops the process with nothing committed.
"""

import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier

from arroyo.backends.kafka import KafkaPayload
from arroyo.processing.strategies import MessageRejected, ProcessingStrategy
from arroyo.types import BrokerValue, Message
from confluent_kafka import KafkaError

from schemas.envelope import Record
from schemas.kafka import Publisher, PublishError

Handle = Callable[[Record], Record]


@dataclass(eq=False)
class _UnderWay:
    message: Message[KafkaPayload]
    acknowledged: bool = False
    failure: BaseException | None = None


class AnswerInPool(ProcessingStrategy[KafkaPayload]):
    """Each record is handled by one process of the pool; its answer is published as soon as it is there.

    Messages go on to the next step, which commits, in the order of their submission, each once its answer
    is acknowledged. `poll` raises what went wrong in a process (BrokenProcessPool if it died) or at the
    broker (PublishError).
    """

    def __init__(
        self,
        pool: ProcessPoolExecutor,
        handle: Handle,
        publisher: Publisher,
        to_record: Callable[[BrokerValue[KafkaPayload]], Record],
        next_step: ProcessingStrategy[KafkaPayload],
        limit: int,
    ) -> None:
        self._pool = pool
        self._handle = handle
        self._publisher = publisher
        self._to_record = to_record
        self._next_step = next_step
        self._limit = limit
        self._under_way: deque[_UnderWay] = deque()
        self._closed = False

    def submit(self, message: Message[KafkaPayload]) -> None:
        """Hand a message to the pool. Raises MessageRejected while `limit` messages are under way."""
        assert not self._closed
        if len(self._under_way) >= self._limit:
            raise MessageRejected
        assert isinstance(message.value, BrokerValue)
        item = _UnderWay(message)
        future = self._pool.submit(self._handle, self._to_record(message.value))
        self._under_way.append(item)
        future.add_done_callback(lambda done: self._publish_answer(item, done))

    def _publish_answer(self, item: _UnderWay, done: "Future[Record]") -> None:
        """Called in a thread of the executor: arroyo's loop may be waiting for its next message."""
        if done.cancelled():
            return
        item.failure = done.exception()
        if item.failure is None:

            def delivered(error: KafkaError | None) -> None:
                if error is not None:
                    item.failure = PublishError(f"the broker refused an answer: {error.str()}")
                item.acknowledged = True

            try:
                self._publisher.publish(done.result(), delivered)
            except Exception as error:  # noqa: BLE001 - it is raised again by poll, in the thread that can stop
                item.failure = error

    def poll(self) -> None:
        """Pass on what is answered and acknowledged."""
        self._publisher.poll()
        while self._under_way:
            first = self._under_way[0]
            if first.failure is not None:
                raise first.failure
            if not first.acknowledged:
                break
            self._next_step.submit(self._under_way.popleft().message)
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


def process_pool(processes: int, initializer: Callable[..., None], *arguments: object) -> ProcessPoolExecutor:
    """A pool of fresh processes that have called the initializer. Raises BrokenProcessPool if it fails in one."""
    context = multiprocessing.get_context("spawn")
    all_there = context.Barrier(processes)
    pool = ProcessPoolExecutor(
        processes, mp_context=context, initializer=_begin, initargs=(all_there, initializer, arguments)
    )
    for started in [pool.submit(os.getpid) for _ in range(processes)]:
        started.result()
    return pool


def _begin(all_there: Barrier, initializer: Callable[..., None], arguments: tuple[object, ...]) -> None:
    initializer(*arguments)
    all_there.wait()
