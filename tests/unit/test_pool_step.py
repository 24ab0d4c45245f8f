"""Nothing is committed before its answer is durable; what cannot be published or encoded stops the process."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import cast

import pytest
from arroyo.backends.kafka import KafkaPayload
from arroyo.processing.strategies import MessageRejected, ProcessingStrategy
from arroyo.types import BrokerValue, Message, Partition, Topic
from confluent_kafka import KafkaError

from consumers.encoder.answers import Answer, Outcome
from consumers.encoder.pool.step import AnswerInPool, Preparation, Work
from consumers.encoder.pool.task_pool import CrashedError, TaskFailedError, TaskPool
from consumers.encoder.process import longest_encoding_s
from consumers.photos.store import longest_fetch_s
from runtime.servers.publisher import Publisher, PublishError
from schemas.envelope import Record, StoredRecord
from schemas.settings import Settings
from tests.memory_journal import MemoryJournal


class Threads:
    """Stands in for the threads: what they prepare is there at once."""

    def submit(
        self, prepare: Callable[[StoredRecord], Preparation[str]], record: StoredRecord
    ) -> "Future[Preparation[str]]":
        future: Future[Preparation[str]] = Future()
        try:
            future.set_result(prepare(record))
        except ZeroDivisionError as error:
            future.set_exception(error)
        return future


class Pool:
    """Stands in for the processes: the test decides when a task is done."""

    def __init__(self) -> None:
        self.tasks: list[tuple[str, Callable[[str | BaseException], None]]] = []

    def submit(self, task: str, on_done: Callable[[str | BaseException], None]) -> None:
        self.tasks.append((task, on_done))

    def poll(self) -> None: ...


class Broker:
    """Stands in for the publisher: the test decides when an answer is acknowledged."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[KafkaError | None], None]] = []
        self.published: list[Record] = []

    def publish(self, record: Record, on_delivered: Callable[[KafkaError | None], None]) -> None:
        self.published.append(record)
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


def message(offset: int, value: bytes = b"v", key: bytes | None = None) -> Message[KafkaPayload]:
    """Unless it is given, each has a key of its own."""
    place = Partition(Topic("t"), 0)
    payload = KafkaPayload(key or str(offset).encode(), value, [])
    return Message(BrokerValue(payload, place, offset, datetime.now(UTC)))


def to_record(value: BrokerValue[KafkaPayload]) -> StoredRecord:
    return StoredRecord("individuals", value.payload.key, value.payload.value, (), 0, value.offset, 0)


ANSWER = Record("encodings", b"k", b"v")
REJECTION = Record("rejections", b"k", b"v")
ENCODED = Answer(Outcome.ENCODED, None, ANSWER)
REJECTED = Answer(Outcome.REJECTED, None, REJECTION)


def answer_to(_record: StoredRecord, _task: str, result: str | TaskFailedError) -> Answer:
    return REJECTED if isinstance(result, TaskFailedError) else ENCODED


def prepare(record: StoredRecord) -> Preparation[str]:
    """Value b"v" is a task, b"bug" is our fault; others are answered at once: by one, by none, by one beside a task."""
    match record.value:
        case b"bug":
            raise ZeroDivisionError
        case b"answer":
            return Preparation([ENCODED])
        case b"nothing":
            return Preparation()
        case b"both":
            return Preparation([REJECTED], "task")
    return Preparation(task="task")


class Parts:
    def __init__(self, longest_s: float = 0.0, journal: MemoryJournal | None = None) -> None:
        self.pool, self.broker, self.commit = Pool(), Broker(), Commit()
        self.journal = journal or MemoryJournal()
        work: Work[str, str] = Work(
            cast(ThreadPoolExecutor, Threads()),
            prepare,
            cast("TaskPool[str, str]", self.pool),
            answer_to,
            self.journal.attempts(),
        )
        self.step = AnswerInPool(
            work, cast(Publisher, self.broker), to_record, self.commit, limit=3, longest_s=longest_s
        )


def test_offsets_go_on_in_order_and_only_once_their_answers_are_acknowledged() -> None:
    parts = Parts()
    for offset in range(3):
        parts.step.submit(message(offset))
    for _, on_done in reversed(parts.pool.tasks):
        on_done("result")
    parts.step.poll()
    assert parts.commit.offsets == []
    parts.broker.waiting[0](None)  # of offset 2
    parts.broker.waiting[1](None)  # of offset 1
    parts.step.poll()
    assert parts.commit.offsets == []
    parts.broker.waiting[2](None)
    parts.step.poll()
    assert parts.commit.offsets == [0, 1, 2]


def test_what_needs_no_process_is_answered_at_once() -> None:
    parts = Parts()
    parts.step.submit(message(0, b"answer"))
    assert parts.pool.tasks == []
    assert parts.broker.published == [ANSWER]


def test_what_has_several_answers_goes_on_when_the_last_is_acknowledged_and_what_has_none_at_once() -> None:
    parts = Parts()
    parts.step.submit(message(0, b"both"))
    parts.step.submit(message(1, b"nothing"))
    parts.broker.waiting[0](None)
    parts.step.poll()
    assert parts.commit.offsets == []
    parts.pool.tasks[0][1]("result")
    parts.step.poll()
    assert parts.commit.offsets == []
    parts.broker.waiting[1](None)
    parts.step.poll()
    assert parts.commit.offsets == [0, 1]
    assert parts.broker.published == [REJECTION, ANSWER]


def test_answers_to_one_key_are_published_in_the_order_of_its_records() -> None:
    parts = Parts()
    parts.step.submit(message(0, key=b"c/x"))
    parts.step.submit(message(1, b"answer", key=b"c/x"))
    parts.step.submit(message(2, key=b"c/y"))
    parts.pool.tasks[1][1](CrashedError())
    assert parts.broker.published == [REJECTION], "of another key"
    parts.pool.tasks[0][1](CrashedError())
    assert parts.broker.published == [REJECTION, REJECTION, ANSWER]
    for on_delivered in parts.broker.waiting:
        on_delivered(None)
    parts.step.poll()
    assert parts.commit.offsets == [0, 1, 2]
    assert parts.step._of_key == {}, "nothing is kept of what is published"


def test_a_record_without_answers_holds_nothing_of_its_key_back() -> None:
    parts = Parts()
    parts.step.submit(message(0, b"nothing", key=b"c/x"))
    parts.step.submit(message(1, b"both", key=b"c/x"))
    parts.step.submit(message(2, b"nothing", key=b"c/x"))
    assert parts.broker.published == [REJECTION]
    parts.pool.tasks[0][1]("result")
    assert parts.broker.published == [REJECTION, ANSWER]


def test_an_answer_that_the_broker_refuses_stops_the_process_with_nothing_committed() -> None:
    """Dead letters are such answers: arroyo's own would be dropped."""
    parts = Parts()
    parts.step.submit(message(0))
    parts.pool.tasks[0][1]("result")
    parts.broker.waiting[0](KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
    with pytest.raises(PublishError):
        parts.step.poll()
    assert parts.commit.offsets == []


def test_what_fails_in_a_process_or_a_thread_stops_the_process_with_nothing_committed() -> None:
    parts = Parts()
    parts.step.submit(message(0))
    parts.pool.tasks[0][1](ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        parts.step.poll()
    parts = Parts()
    parts.step.submit(message(0, b"bug"))
    with pytest.raises(ZeroDivisionError):
        parts.step.poll()
    assert parts.commit.offsets == []


def test_a_task_that_its_process_died_of_is_answered_with_a_rejection() -> None:
    parts = Parts()
    parts.step.submit(message(0))
    parts.pool.tasks[0][1](CrashedError())
    assert parts.broker.published == [REJECTION]


def test_no_more_than_the_limit_is_taken() -> None:
    parts = Parts()
    for offset in range(3):
        parts.step.submit(message(offset))
    with pytest.raises(MessageRejected):
        parts.step.submit(message(3))


def test_the_loop_is_alive_unless_a_process_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    beats: list[None] = []
    monkeypatch.setattr("consumers.encoder.pool.step.HEALTH.beat", lambda: beats.append(None))
    parts = Parts()
    parts.step.poll()
    assert len(beats) == 1, "there is nothing to do"
    parts.step.submit(message(0))
    parts.step.poll()
    assert len(beats) == 1, "a process has it"
    parts.pool.tasks[0][1]("result")
    parts.step.poll()
    assert len(beats) == 2, "only the broker is waited for"


def test_a_photo_has_the_time_that_is_set_for_it_before_the_loop_seems_to_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    beats: list[None] = []
    monkeypatch.setattr("consumers.encoder.pool.step.HEALTH.beat", lambda: beats.append(None))
    now = 1000.0
    monkeypatch.setattr("consumers.encoder.pool.step.time.monotonic", lambda: now)
    parts = Parts(longest_s=320.0)
    for offset in range(2):
        parts.step.submit(message(offset))
    for now, expected in ((1319.0, 1), (1320.0, 1)):
        parts.step.poll()
        assert len(beats) == expected, f"at {now}"
    parts.pool.tasks[0][1]("result")
    parts.broker.waiting[0](None)
    parts.step.poll()
    assert len(beats) == 3, "the first is done, and the time of the second begins"
    now = 1640.0
    parts.step.poll()
    assert len(beats) == 3


def test_the_time_of_a_photo_is_that_of_all_attempts_and_of_a_process_that_is_stuck_with_it_twice() -> None:
    settings = Settings(_env_file=None, photo_attempts=6, photo_timeout_s=10, encoder_photo_s=10)
    assert longest_fetch_s(settings) == 6 * 10 + 0.5 + 1 + 2 + 4 + 8
    assert longest_encoding_s(settings) == 2 * 30 * 10


def test_what_is_not_answered_when_the_partitions_go_is_not_committed() -> None:
    parts = Parts()
    for offset in range(2):
        parts.step.submit(message(offset))
    parts.pool.tasks[0][1]("result")
    parts.broker.waiting[0](None)
    parts.step.close()
    parts.step.join(timeout=0.05)
    assert parts.commit.offsets == [0]
