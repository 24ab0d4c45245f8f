"""Reads the topic `erasures`: every worker that must not let an erased person come back has all of it in memory."""

import contextlib
from collections.abc import Iterable
from typing import Self

from runtime.process.background import Background
from runtime.servers.log import FOLLOWING_WAIT_MS, Span, TopicLog
from schemas.envelope import StoredRecord, UnreadableError, decode
from schemas.erased import Erased, ErasureKey
from schemas.settings import Settings
from schemas.topics import ERASURES


class ErasureLog:
    """Fills a registry: `catch_up` with what there is, `follow` with what comes too, in a thread of its own.

    What was erased within the days that tombstones are kept is known from them at once: a registry that is a moment
    behind lets nobody come back.
    """

    def __init__(self, settings: Settings, client: str) -> None:
        """Raises ErasureKeyError where no key is set, MissingTopicsError."""
        self.key = ErasureKey(settings.erasure_key)
        self.erased = Erased(self.key)
        self._log = TopicLog(settings, ERASURES, f"{client}-erasures", idle_wait_ms=FOLLOWING_WAIT_MS)
        self._next = 0
        self._following: Background | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def catch_up(self) -> Self:
        """Read all that there is by now. A broker that is away is waited for."""
        begin, end = self._log.span(0)
        self._add(self._log.read({0: Span(self._next or begin, end)}))
        self._next = end
        return self

    def follow(self) -> Self:
        """Catch up, and go on reading until the process ends; the first time that it is called."""
        if self._following is None:
            self.catch_up()
            self._following = Background(lambda: self._add(self._log.follow({0: self._next})), "erasures").start()
        return self

    def check(self) -> None:
        """Raise what the thread failed of: without it the registry would grow old."""
        if self._following is not None:
            self._following.check()

    def close(self) -> None:
        """Let go of the broker; not while it follows."""
        self._log.close()

    def _add(self, batches: Iterable[list[StoredRecord]]) -> None:
        for batch in batches:
            for record in batch:
                with contextlib.suppress(UnreadableError):  # a dead letter: the sink writes it
                    self.erased.add(decode(record, ERASURES))
