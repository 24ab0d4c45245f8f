"""A matcher on real servers, as the benchmark drives it: encodings go in by the million, times and memory come out."""

import base64
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from confluent_kafka import Consumer, TopicPartition
from numpy.typing import NDArray
from redis import Redis

from runtime.servers.kafka import consumer_config
from runtime.servers.log import Span, TopicLog
from runtime.servers.publisher import Publisher
from runtime.servers.redis import key
from schemas.envelope import Record, announce, decode, encode, full_name
from schemas.events.encodings import EMBEDDING_DIMENSIONS, EncodingComputed
from schemas.events.pairs import IndividualChecked
from schemas.shard import Shard
from schemas.topics import DUPLICATES, ENCODINGS, MATCHER, SINK, partition_of
from streams.checkpoint.manifest import Manifest
from streams.checkpoint.progress import Progress
from streams.checkpoint.state import State, state_of
from streams.checkpoint.store import CheckpointStore
from streams.gallery.gallery import Gallery
from streams.gallery.segment import IndexQuality
from tests.encodings import computed
from tests.integration.world import World
from tests.population import again, embeddings, individual_id

COLLECTION, SOURCE = "c", "bench"
PARTITION = partition_of(COLLECTION, ENCODINGS.partitions)
SEED, OTHERS = 1, 2  # of those in the gallery, and of newcomers
REGISTERED_ALREADY = 0.05
_AT_ONCE = 50_000


def records_of(vectors: NDArray[np.float32], first: int) -> Iterator[Record]:
    """Encodings of individuals `first`, `first + 1` …, as `encode` makes them, without a model for each."""
    stand_in = np.ones(EMBEDDING_DIMENSIONS, np.float32)
    like = encode(announce(computed("?", stand_in, collection=COLLECTION), SOURCE))
    assert like.value is not None
    text = base64.b64encode(stand_in.tobytes())
    begin, _, rest = like.value.partition(b'"?"')
    middle, _, end = rest.partition(text)
    headers = tuple(header for header in like.headers if header[0] != "ce_id")
    for number, vector in enumerate(vectors, first):
        who = individual_id(number)
        value = b"".join((begin, f'"{who}"'.encode(), middle, base64.b64encode(vector.tobytes()), end))
        record = Record(
            like.topic,
            f"{COLLECTION}/{who}".encode(),
            value,
            (*headers, ("ce_id", who.encode())),
            partition_by=like.partition_by,
        )
        if number == first:
            event = decode(record).event
            assert isinstance(event, EncodingComputed)
            assert (event.individual_id, event.embedding.tolist()) == (who, vector.tolist())
        yield record


def newcomers(gallery: int, count: int, skip: int = 0) -> NDArray[np.float32]:
    """Photos of `count` people, a share of whom is in the gallery, in any order: others after each `skip`."""
    known = round(count * REGISTERED_ALREADY)
    random = np.random.default_rng(skip)
    photos = np.concatenate(
        [
            embeddings(skip + count - known, OTHERS)[skip:],
            again(random.choice(gallery, known, replace=False), SEED, shot=2 + skip),
        ]
    )
    return random.permutation(photos)


class Matching:
    """One collection's matcher, in a world of its own."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.published = 0
        self._publisher = Publisher(world.settings, SOURCE)
        self._progress = Progress(world.settings)
        self._duplicates = TopicLog(world.settings, DUPLICATES, SOURCE)
        self._redis = Redis.from_url(world.settings.redis)

    # what goes in

    def publish(self, vectors: NDArray[np.float32]) -> None:
        """Encodings of new individuals; returns once all are acknowledged."""
        for begin in range(0, len(vectors), _AT_ONCE):
            chunk = vectors[begin : begin + _AT_ONCE]
            self._publisher.publish_all(records_of(chunk, self.published))
            self.published += len(chunk)

    def publish_evenly(self, vectors: NDArray[np.float32], rate: float) -> None:
        """The same, so many a second."""
        begun = time.monotonic()
        failed: list[object] = []
        for number, record in enumerate(records_of(vectors, self.published)):
            while (left := begun + number / rate - time.monotonic()) > 0:
                self._publisher.poll(left)
            self._publisher.publish(record, lambda error: failed.append(error) if error else None)
        assert self._publisher.flush(30) == 0
        assert not failed
        self.published += len(vectors)

    def seal(self, vectors: NDArray[np.float32], limit_s: float) -> IndexQuality:
        """Make a gallery that was matched long ago, in one sealed segment; returns the quality of its index.

        A matcher that finds an empty Redis restores it from the log, up to its group's offset, and seals all at once.
        """
        self.publish(vectors)
        self.commit_all()
        self.world.start("match")
        self.world.wait(lambda: self._sealed() == self.published, "sealed and stored", limit_s)
        return self.state().scopes[0].segments[0].quality

    def store(self, vectors: NDArray[np.float32], gallery: Gallery) -> None:
        """Publish a gallery that was sealed elsewhere, and store its checkpoint, as a matcher leaves them."""
        self.publish(vectors)
        self.commit_all()
        checkpoints = CheckpointStore(self.world.settings, self._redis, Shard(), PARTITION)
        assert checkpoints.save(state_of(gallery, self.published), lambda: True)

    def commit_all(self) -> None:
        """Commit the end of what is published for the matcher's group, as if all of it were matched."""
        group = Consumer(consumer_config(self.world.settings, MATCHER.name))
        place = TopicPartition(full_name(ENCODINGS.name, self.world.settings.namespace), PARTITION, self.published)
        group.commit(offsets=[place], asynchronous=False)
        group.close()

    # the process

    def rate(self, vectors: NDArray[np.float32], limit_s: float) -> tuple[float, int]:
        """Newcomers a second of a matcher that finds them waiting, and how many pairs it found. It is left running."""
        self.publish(vectors)
        begin = self.end()
        self.start()
        self.wait_until_matched(limit_s)
        checks = self.checks(begin).values()
        assert len(checks) == len(vectors)
        times = sorted(published for published, _ in checks)
        skipped = len(vectors) // 20  # the matcher is under way, and never out of work
        rate = (len(vectors) - 2 * skipped) / (times[-1 - skipped] - times[skipped])
        return rate, sum(check.duplicates for _, check in checks)

    def start(self) -> float:
        """Start the matcher; when that was, in seconds since 1970."""
        started = time.time()
        self.world.start("match")
        return started

    def stop(self) -> None:
        """Have it leave its group and end."""
        self.world.workers.pop("match").stop()

    def memory(self) -> dict[str, float]:
        """Of its process in MB: VmRSS now and VmHWM, the most there was."""
        process = self.world.workers["match"].process
        assert process is not None
        return memory_of(process.pid)

    # what comes out

    def wait_until_matched(self, limit_s: float) -> None:
        """Return once everyone is compared."""
        self.world.wait(lambda: self._progress.matched(PARTITION) == self.published, "everyone is matched", limit_s)

    def wait_until_written(self, limit_s: float) -> None:
        """Return once Postgres has everything; the sink commits within a second."""
        sinks = [TopicLog(self.world.settings, topic, SOURCE, SINK.name) for topic in (ENCODINGS, DUPLICATES)]
        self.world.wait(
            lambda: all((log.committed(PARTITION) or 0) == log.span(PARTITION).end for log in sinks),
            "all is written",
            limit_s,
        )
        for log in sinks:
            log.close()

    def end(self) -> int:
        """Where the next finding will stand."""
        return self._duplicates.span(PARTITION).end

    def checks(self, begin: int) -> dict[str, tuple[float, IndividualChecked]]:
        """By individual those that stand at `begin` and after, and when they were published, in seconds since 1970."""
        found: dict[str, tuple[float, IndividualChecked]] = {}
        for batch in self._duplicates.read({PARTITION: Span(begin, self.end())}):
            for record in batch:
                if ("ce_type", b"IndividualChecked") in record.headers:
                    event = decode(record).event
                    assert isinstance(event, IndividualChecked)
                    found.setdefault(event.individual_id, (record.timestamp / 1000, event))
        return found

    def encoded_at(self, begin: int) -> dict[str, float]:
        """When encodings that stand at `begin` and after were published, in seconds since 1970, by individual."""
        with TopicLog(self.world.settings, ENCODINGS, SOURCE) as log:
            return {
                (record.key or b"").decode().partition("/")[2]: record.timestamp / 1000
                for batch in log.read({PARTITION: Span(begin, self.published)})
                for record in batch
            }

    def state(self) -> State:
        """That of the checkpoint."""
        settings = self.world.settings
        state = CheckpointStore(settings, self._redis, Shard(), PARTITION).load(lambda: self.published)
        assert state is not None
        return state

    def _sealed(self) -> int:
        value = self._redis.get(key(self.world.settings, "manifest", Shard(), PARTITION))
        if not isinstance(value, bytes):
            return 0
        return sum(segment.rows for scope in Manifest.from_bytes(value).scopes for segment in scope.segments)


def memory_of(process: int | str = "self") -> dict[str, float]:
    """Of a process in MB: VmRSS now and VmHWM, the most there was."""
    status = Path(f"/proc/{process}/status").read_text()
    lines = [line.split() for line in status.splitlines() if line.startswith(("VmRSS", "VmHWM"))]
    return {name.rstrip(":"): int(value) / 1000 for name, value, _ in lines}
