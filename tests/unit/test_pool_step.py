"""Nothing is committed before its answer is durable; what cannot be published or encoded stops the process."""

import os
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from arroyo.backends.kafka import KafkaPayload
from arroyo.processing.strategies import MessageRejected, ProcessingStrategy
from arroyo.types import BrokerValue, Message, Partition, Topic
from confluent_kafka import KafkaError

from consumers.pool_step import AnswerInPool, process_pool
from schemas.envelope import Record
from schemas.kafka import Publisher, PublishError


class Pool:
    """Stands in for the process pool: the test decides when a task is done."""

    def __init__(self) -> None:
        self.tasks: list[tuple[Future[Record], Record]] = []

    def submit(self, _handle: Callable[[Record], Record], record: Record) -> Future[Record]:
        future: Future[Record] = Future()
        self.tasks.append((future, record))
        return future


class Broker:
    """Stands in for the publisher: the test decides when an answer is acknowledged."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[KafkaError | None], None]] = []

    def publish(self, _record: Record, on_delivered: Callable[[KafkaError | None], None]) -> None:
        self.waiting.append(on_delivered)

    def poll(self, _seconds: float = 0.0) -> None:
        pass


class Commit(ProcessingStrategy[KafkaPayload]):
    def __init__(self) -> None:
        self.offsets: list[int] = []

    def submit(self, message: Message[KafkaPayload]) -> None:
        assert isinstance(message.value, BrokerValue)
        self.offsets.append(message.value.offset)

    def poll(self) -> None: ...
    def close(self) -> None: ...
    def terminate(self) -> None: ...
    def join(self, timeout: float | None = None) -> None: ...


def message(offset: int) -> Message[KafkaPayload]:
    place = Partition(Topic("t"), 0)
    return Message(BrokerValue(KafkaPayload(b"k", b"v", []), place, offset, datetime.now(UTC)))


def to_record(value: BrokerValue[KafkaPayload]) -> Record:
    return Record("individuals", value.payload.key, value.payload.value, offset=value.offset)


class Parts:
    def __init__(self) -> None:
        self.pool, self.broker, self.commit = Pool(), Broker(), Commit()
        self.step = AnswerInPool(
            cast(ProcessPoolExecutor, self.pool),
            lambda record: record,
            cast(Publisher, self.broker),
            to_record,
            self.commit,
            limit=3,
        )


def test_offsets_go_on_in_order_and_only_once_their_answers_are_acknowledged() -> None:
    parts = Parts()
    for offset in range(3):
        parts.step.submit(message(offset))
    for future, record in reversed(parts.pool.tasks):
        future.set_result(record)
    parts.step.poll()
    assert parts.commit.offsets == []
    parts.broker.waiting[0](None)  # of offset 2
    parts.broker.waiting[1](None)  # of offset 1
    parts.step.poll()
    assert parts.commit.offsets == []
    parts.broker.waiting[2](None)
    parts.step.poll()
    assert parts.commit.offsets == [0, 1, 2]


def test_an_answer_that_the_broker_refuses_stops_the_process_with_nothing_committed() -> None:
    """Dead letters are such answers: arroyo's own would be dropped."""
    parts = Parts()
    parts.step.submit(message(0))
    future, record = parts.pool.tasks[0]
    future.set_result(record)
    parts.broker.waiting[0](KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
    with pytest.raises(PublishError):
        parts.step.poll()
    assert parts.commit.offsets == []


def test_what_fails_in_a_process_stops_the_process_with_nothing_committed() -> None:
    parts = Parts()
    parts.step.submit(message(0))
    parts.pool.tasks[0][0].set_exception(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        parts.step.poll()
    assert parts.commit.offsets == []


def test_no_more_than_the_limit_is_taken() -> None:
    parts = Parts()
    for offset in range(3):
        parts.step.submit(message(offset))
    with pytest.raises(MessageRejected):
        parts.step.submit(message(3))


def test_what_is_not_answered_when_the_partitions_go_is_not_committed() -> None:
    parts = Parts()
    for offset in range(2):
        parts.step.submit(message(offset))
    future, record = parts.pool.tasks[0]
    future.set_result(record)
    parts.broker.waiting[0](None)
    parts.step.close()
    parts.step.join(timeout=0.05)
    assert parts.commit.offsets == [0]


def _die(*_: Any) -> None:
    os._exit(7)


def _nothing() -> None:
    pass


def test_a_process_that_dies_is_an_error_not_a_wait() -> None:
    pool = process_pool(2, _nothing)
    with pytest.raises(BrokenProcessPool):
        pool.submit(_die).result(timeout=30)
    with pytest.raises(BrokenProcessPool):
        process_pool(1, _die)
