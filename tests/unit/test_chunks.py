"""A checkpoint is read by several threads at once, and the loop that waits for them is alive."""

import hashlib
import threading
from typing import cast

import pytest
from redis import Redis

from streams.checkpoint.chunks import Chunks
from streams.checkpoint.manifest import Blob, BlobPart


class SilentRedis:
    """Stands in for Redis: it does not answer before it is told to."""

    def __init__(self) -> None:
        self.answer = threading.Event()

    def get(self, _key: str) -> bytes:
        assert self.answer.wait(10), "nobody said that Redis is waited for"
        return b"value"


def test_who_waits_for_a_checkpoint_to_be_read_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    redis = SilentRedis()
    monkeypatch.setattr("streams.checkpoint.chunks._SAID_EVERY_S", 0.01)
    monkeypatch.setattr("streams.checkpoint.chunks.HEALTH.still_waiting", redis.answer.set)
    part = BlobPart(checksums=(hashlib.sha256(b"value").hexdigest(),))
    with Chunks(cast(Redis, redis), "here").files_of(Blob(id="one", parts={"file": part})) as files:
        assert files["file"].read() == b"value"
