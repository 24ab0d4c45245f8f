"""A lease is certain, or its holder is told."""

from typing import Any

import pytest

import streams.checkpoint.lease as leases
from streams.checkpoint.lease import Lease


class _BrokenLock:
    """A lock in Redis that can be taken, and whose renewal fails of something that nobody thought of."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def acquire(self, **_: str) -> bool:
        return True

    def reacquire(self) -> bool:
        raise ValueError("not a number")


class _Redis:
    def pttl(self, _: str) -> int:
        return -2


def test_what_the_renewal_of_a_lease_fails_of_is_raised_where_it_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "Lock", _BrokenLock)
    monkeypatch.setattr(leases, "_RENEWED_EVERY_S", 0.001)
    lease = Lease(_Redis(), "compacting")  # type: ignore[arg-type] # as much of Redis as is asked
    lease.acquire()
    lease._renewing.join(20)
    with pytest.raises(ValueError, match="not a number"):
        lease.check()
