"""A tenant of its own on the real servers: topics, database and Redis keys of one test, and its workers."""

import contextlib
import itertools
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition
from pydantic import SecretStr
from sqlalchemy import func, make_url, select
from sqlalchemy.engine import Connection

from deploy.local.stack import WORKERS, Stack
from deploy.local.supervisor import Child
from deploy.setup.everything import set_up
from deploy.status.workers import lags
from producers.submit.entries import Entry
from producers.submit.publish import submit
from runtime.servers.kafka import consumer_config, retry_while_away
from runtime.servers.postgres import postgres_engine
from runtime.servers.publisher import Publisher
from runtime.servers.records import record_of
from schemas.envelope import Message, Record, StoredRecord, decode, encode, full_name
from schemas.events.base import Detector, Event
from schemas.events.registrations import IndividualCreated, Photo
from schemas.settings import Settings
from schemas.tables import (
    certificates,
    checks,
    decisions,
    duplicates,
    erased,
    individual_duplicates,
    individuals,
    retractions,
)
from schemas.topics import Topic
from tests.encodings import thresholds_of_tests

ERASURE_KEY = SecretStr("of all worlds: " + "0123456789abcdef" * 2)
_numbers = itertools.count(1)


class Lines:
    """The log lines of all processes, kept for messages and conditions."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._lock = threading.Lock()

    def add(self, name: str, line: str) -> None:
        with self._lock:
            self._lines.append(f"{name}: {line}")

    def since(self, position: int) -> list[str]:
        with self._lock:
            return self._lines[position:]

    def __len__(self) -> int:
        return len(self._lines)


@contextlib.contextmanager
def running_servers(say: Callable[[str], None] = lambda _: None) -> Iterator[tuple[Stack, Lines, Path]]:
    """Kafka, PostgreSQL and Valkey on ports of their own, what all processes say, and the folder of both."""
    lines = Lines()
    with tempfile.TemporaryDirectory(prefix="facematch-") as folder:
        Path(folder).chmod(0o711)  # for `nobody`, whom Postgres runs as for root, where root may not mount
        stack = Stack(Path(folder) / "stack", lines.add)
        try:
            stack.start_servers(say)
            yield stack, lines, Path(folder)
        finally:
            stack.stop()


class World:
    """See the module."""

    def __init__(
        self,
        stack: Stack,
        lines: Lines,
        folder: Path,
        threshold: float = 0.45,
        encoder: str = "face_recognition",
        **settings: Any,
    ) -> None:
        self.stack, self.lines, self.encoder = stack, lines, encoder
        self.name = f"test{next(_numbers)}"
        self.begin = len(lines)
        self.threshold = threshold
        settings.setdefault("thresholds", thresholds_of_tests(threshold))
        url = make_url(stack.addresses["FACEMATCH_POSTGRES"]).set(database=self.name)
        self.settings = Settings(
            namespace=self.name,
            kafka=stack.addresses["FACEMATCH_KAFKA"],
            redis=stack.addresses["FACEMATCH_REDIS"],
            postgres=url.render_as_string(hide_password=False),
            data_folder=folder,
            erasure_key=ERASURE_KEY,
            **settings,
        )
        given = self.settings.model_dump(mode="json", exclude_unset=True)
        for name in given:
            if isinstance(secret := getattr(self.settings, name), SecretStr):
                given[name] = secret.get_secret_value()
        self.env = {
            f"FACEMATCH_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
            for name, value in given.items()
        }
        self.set_up()
        self.engine = postgres_engine(self.settings, pool_pre_ping=True)
        self.workers: dict[str, Child] = {}

    def set_up(self) -> None:
        """As `facematch setup` does."""
        set_up(self.settings, encoder=self.encoder)

    def env_of(self, worker: str) -> dict[str, str]:  # noqa: ARG002 - of all the same, here
        """The settings of a worker, as environment variables."""
        return self.env

    def start(self, *names: str) -> None:
        """Start workers: encode-cpu, encode-gpu, match, sink, outbox; match-2 is another match, and so on."""
        for name in names:
            self.workers[name] = self.stack.start_worker(
                name, *WORKERS[name.rstrip("-0123456789")], env=self.env_of(name)
            )

    def crash(self, *names: str) -> None:
        """SIGKILL workers, and start them at once: without the pauses, ever longer, of who dies again and again."""
        for name in names:
            self.workers[name].kill()
        for name in names:
            self.workers[name].stop()
            self.workers[name].start()

    def restarts(self) -> dict[str, int]:
        """How often each worker had to be started again; those that never had are left out."""
        return {name: worker.restarts for name, worker in self.workers.items() if worker.restarts}

    def stop(self) -> None:
        """Stop all workers, at once."""
        with ThreadPoolExecutor(max(1, len(self.workers))) as threads:
            list(threads.map(Child.stop, self.workers.values()))
        self.engine.dispose()

    def wait(self, condition: Callable[[], bool], what: str, limit_s: float = 60) -> None:
        """Return once the condition holds. Fails after the limit, with what was seen."""
        deadline = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > deadline:
                recent = "\n".join(line[:300] for line in self.lines.since(self.begin)[-40:])
                raise AssertionError(f"not within {limit_s:.0f} s: {what}\nstates: {self._seen()}\n{recent}")
            time.sleep(0.2)  # the pause of this very condition: nothing else in the tests sleeps

    def _seen(self) -> dict[str, int]:
        states: dict[str, int] = {}
        with contextlib.suppress(Exception):
            for state, _ in self.states().values():
                states[state] = states.get(state, 0) + 1
        return states

    def said(self, begin: int = 0) -> list[dict[str, Any]]:
        """What the workers' log lines since a position say."""
        lines = (line.partition(": ") for line in self.lines.since(max(begin, self.begin)))
        return [json.loads(line) for name, _, line in lines if name in self.workers and line.startswith("{")]

    # what goes in

    def submit(
        self, photos: Iterable[tuple[str, str]], collection: str = "c", detector: Detector | None = None
    ) -> None:
        """Submit (individual, photo URI) with `facematch submit`'s own code; every one must be acknowledged."""
        entries = [
            Entry(
                who,
                IndividualCreated(
                    collection=collection, individual_id=who, revision=1, photo=Photo(uri=uri), detector=detector
                ),
            )
            for who, uri in photos
        ]
        report = submit(self.settings, entries)
        assert report.failed == []
        assert report.acknowledged == len(entries)

    def publish(self, messages: Sequence[Message[Event]]) -> None:
        """Publish events of any type."""
        self.publish_records([encode(message) for message in messages])

    def publish_records(self, records: Sequence[Record]) -> None:
        """Publish records as they are."""
        Publisher(self.settings, "test").publish_all(records)

    # what came out

    def settled(self) -> bool:
        """Whether every consumer group has committed all that its topics hold. False while the broker is away."""
        with contextlib.suppress(KafkaException):
            return all(lag.records == 0 for lag in lags(self.settings))  # in the order of the flow
        return False

    def connect(self) -> Connection:
        return self.engine.connect()

    def states(self) -> dict[str, tuple[str, str | None]]:
        """(state, rejection reason) of each individual."""
        view = individual_duplicates.c
        with self.connect() as connection:
            rows = connection.execute(select(view.individual_id, view.state, view.rejection_reason))
            return {who: (state, reason) for who, state, reason in rows}

    def count(self, *states: str) -> int:
        """How many individuals are in one of the states."""
        query = select(func.count()).where(individual_duplicates.c.state.in_(states))
        with self.connect() as connection:
            return connection.scalar(query) or 0

    def pairs(self) -> set[tuple[str, str]]:
        """Current pairs, the smaller id first."""
        query = select(duplicates.c.individual_a, duplicates.c.individual_b).where(duplicates.c.retracted.is_(None))
        with self.connect() as connection:
            return {(a, b) for a, b in connection.execute(query)}

    def tables(self) -> list[dict[str, Any]]:
        """Every row of every table, without the columns that say when something was observed."""
        rows: list[dict[str, Any]] = []
        with self.connect() as connection:
            for table in (individuals, checks, duplicates, retractions, decisions, certificates, erased):
                found = connection.execute(select(table).order_by(*table.primary_key.columns)).mappings()
                rows += [{key: value for key, value in row.items() if not key.endswith("_at")} for row in found]
        return rows

    def ends(self, topic: Topic[Event]) -> dict[int, int]:
        """The offset that the next record of each partition of a topic will get."""
        name = full_name(topic.name, self.settings.namespace)
        consumer = Consumer(consumer_config(self.settings, "test-reader"))
        try:
            places = [TopicPartition(name, partition) for partition in range(topic.partitions)]
            return {
                place.partition: retry_while_away(partial(consumer.get_watermark_offsets, place, timeout=10), "read")[1]
                for place in places
            }
        finally:
            consumer.close()

    def read(self, topic: Topic[Event]) -> list[StoredRecord]:
        """Every record of a topic, from its beginning."""
        name = full_name(topic.name, self.settings.namespace)
        ends = {partition: end for partition, end in self.ends(topic).items() if end > 0}
        consumer = Consumer(consumer_config(self.settings, "test-reader"))
        try:
            consumer.assign([TopicPartition(name, partition, 0) for partition in ends])
            records: list[StoredRecord] = []
            deadline = time.monotonic() + 30
            while ends:
                assert time.monotonic() < deadline, f"{name} was not read within 30 s"
                for message in consumer.consume(1000, 0.1):
                    assert message.error() is None, message.error()
                    record = record_of(message, topic.name)
                    records.append(record)
                    if record.offset + 1 >= ends.get(record.partition, 0):
                        ends.pop(record.partition, None)
            return records
        finally:
            consumer.close()

    def events(self, topic: Topic[Event]) -> list[Event]:
        """Every event of a topic, decoded."""
        return [decode(record).event for record in self.read(topic)]
