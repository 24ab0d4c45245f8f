"""Redis is waited for: one whose disk is full like one that has no memory left."""

import pytest
import redis.retry
from redis.exceptions import OutOfMemoryError, ResponseError

from runtime.servers.redis import connect, connect_patiently
from schemas.settings import Settings

DISK_FULL = ResponseError("MISCONF Errors writing to the AOF file: No space left on device")


def ask(client: redis.Redis, errors: list[Exception]) -> str:
    """What a command of the client gives that fails with each of the errors first."""

    def do() -> str:
        if errors:
            raise errors.pop(0)
        return "written"

    return client.get_retry().call_with_retry(do, lambda *_: None)  # type: ignore[union-attr]


def test_a_redis_whose_disk_is_full_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(redis.retry, "sleep", pauses.append)
    assert ask(connect_patiently(Settings()), [DISK_FULL, DISK_FULL]) == "written"
    assert len(pauses) == 2


def test_a_checkpoint_is_told_that_there_is_no_room() -> None:
    with pytest.raises(OutOfMemoryError, match="No space left"):
        ask(connect(Settings()), [DISK_FULL])


def test_other_refusals_are_not_waited_for() -> None:
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        ask(connect_patiently(Settings()), [ResponseError("WRONGTYPE Operation against a key")])
