"""Reads the topic `erasures`: every worker that must not let an erased person come back has all of it in memory."""

import contextlib

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from runtime.process.background import Background
from runtime.servers.kafka import consumer_config, is_transient, record_of, retry_while_away
from runtime.telemetry.health import HEALTH
from schemas.envelope import UnreadableError, decode, full_name
from schemas.erased import Erased, ErasureKey
from schemas.settings import Settings
from schemas.topics import ERASURES

_WAIT_S = 0.5
_BATCH = 1000


class ErasureLog:
    """Fills a registry: `catch_up` with what there is, `follow` with what comes too, in a thread of its own.

    What was erased within the days that tombstones are kept is known from them at once: a registry that is a moment
    behind lets nobody come back.
    """

    def __init__(self, settings: Settings, client: str) -> None:
        """Raises ErasureKeyError where no key is set."""
        self.key = ErasureKey(settings.erasure_key)
        self.erased = Erased(self.key)
        # No group is joined, and nothing is committed.
        config = {"enable.auto.commit": False, "enable.partition.eof": True}
        self._consumer = Consumer(consumer_config(settings, f"{client}-erasures") | config)
        self._place = TopicPartition(full_name(ERASURES.name, settings.namespace), 0, 0)
        self._next = 0
        self._following: Background | None = None

    def catch_up(self) -> "ErasureLog":
        """Read all that there is by now. A broker that is away is waited for. Raises ErasureKeyError."""
        begin, end = retry_while_away(lambda: self._consumer.get_watermark_offsets(self._place, timeout=5), "erasures")
        if not self._consumer.assignment():
            self._next = begin
            self._consumer.assign([self._place])
        while self._next < end:
            self._read()
            HEALTH.still_waiting()
        return self

    def follow(self) -> "ErasureLog":
        """Catch up, and go on reading until the process ends; the first time that it is called."""
        if self._following is None:
            self.catch_up()
            self._following = Background(self._follow, "erasures").start()
        return self

    def check(self) -> None:
        """Raise what the thread failed of: without it the registry would grow old."""
        if self._following is not None:
            self._following.check()

    def close(self) -> None:
        """Let go of the broker; not while it follows."""
        self._consumer.close()

    def _follow(self) -> None:
        while True:
            self._read()

    def _read(self) -> None:
        for message in self._consumer.consume(_BATCH, _WAIT_S):
            error, offset = message.error(), message.offset()
            if error is not None and error.code() == KafkaError._PARTITION_EOF and offset is not None:
                self._next = offset
            elif error is None:
                assert offset is not None
                with contextlib.suppress(UnreadableError):  # a dead letter: the sink says so
                    self.erased.add(decode(record_of(message, ERASURES.name), ERASURES))
                self._next = offset + 1
            elif not is_transient(error):
                raise KafkaException(error)
