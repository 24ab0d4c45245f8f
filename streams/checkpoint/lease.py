"""A lease on the results of compaction: for one process at a time, and none that was frozen while another took over."""

import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from redis import Redis
from redis.exceptions import LockError
from redis.lock import Lock

from runtime.process.background import Background

log = structlog.stdlib.get_logger(__name__)

_KEPT_S = 30.0  # without being renewed
_RENEWED_EVERY_S = 5.0
_ASKED_EVERY_S = 0.2
SURE_FOR_S = 5.0  # a process that has just checked has the lease for at least so long


class HeldError(Exception):
    """Another process has the lease. The text says which."""


class LeaseLostError(Exception):
    """The lease ran out while this process was frozen: another may have it and do the work."""


class Lease:
    """A key in Redis with a token that no other lease ever has. Use `lease_of`.

    What is written under it is written by a script that compares the token: see `Inbox.put`.
    """

    def __init__(self, redis: Redis, key: str) -> None:
        self.key = key
        self.token = f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex}"
        self._redis = redis
        self._lock = Lock(redis, key, timeout=_KEPT_S, blocking=False, thread_local=False)
        self._renewed = 0.0
        self._done = threading.Event()
        self._renewing = Background(self._renew, "lease")

    def acquire(self) -> None:
        """Take it, from a process that died once it has run out. Raises HeldError if it is renewed meanwhile."""
        begun, left_ms = time.monotonic(), self._redis.pttl(self.key)
        while not self._lock.acquire(token=self.token):
            before, left_ms = left_ms, self._redis.pttl(self.key)
            if left_ms > before > 0:
                holder = self._redis.get(self.key)
                who = holder.decode().rpartition("/")[0] if isinstance(holder, bytes) else "another process"
                raise HeldError(f"{who} is at it")
            time.sleep(_ASKED_EVERY_S)
            begun = time.monotonic()
        self._renewed = begun
        self._renewing.start()

    def check(self) -> None:
        """Raise LeaseLostError unless it is certain that nobody else has it, now and for SURE_FOR_S.

        Raises too what the thread that renews it failed of.
        """
        self._renewing.check()
        age = time.monotonic() - self._renewed
        if age == math.inf:
            raise LeaseLostError("Redis lost the lease, or gave it to another process")
        if age > _KEPT_S - SURE_FOR_S:
            raise LeaseLostError(f"the lease was not renewed for {age:.0f} s")

    def release(self) -> None:
        """Give it back; one that was lost is another's already."""
        self._done.set()
        try:
            self._lock.release()
        except LockError:
            log.warning("the lease was lost before it was given back")

    def _renew(self) -> None:
        while not self._done.wait(_RENEWED_EVERY_S):
            begun = time.monotonic()
            try:
                self._lock.reacquire()
            except LockError:
                self._renewed = -math.inf
                return
            self._renewed = begun


@contextmanager
def lease_of(redis: Redis, key: str) -> Iterator[Lease]:
    """Hold a lease. Raises HeldError."""
    lease = Lease(redis, key)
    lease.acquire()
    try:
        yield lease
    finally:
        lease.release()
