"""A checkpoint is read by several threads at once, and the loop that waits for them is alive."""

import hashlib
import threading
from typing import cast

import pytest
from redis import Redis

from streams.checkpoint.chunks import Chunks, NamingScript
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
    monkeypatch.setattr("streams.checkpoint.chunks._BEATS_EVERY_S", 0.01)
    monkeypatch.setattr("streams.checkpoint.chunks.HEALTH.still_waiting", redis.answer.set)
    part = BlobPart(checksums=(hashlib.sha256(b"value").hexdigest(),))
    with Chunks(cast(Redis, redis), "here").files_of(Blob(id="one", parts={"file": part})) as files:
        assert files["file"].read() == b"value"


class ScriptedRedis:
    """Notes the scripts that are registered, and with what they are run."""

    def __init__(self) -> None:
        self.text = ""
        self.keys: list[str] = []

    def register_script(self, text: str) -> "ScriptedRedis":
        self.text = text
        return self

    def __call__(self, keys: list[str], args: list[str]) -> bytes:
        self.keys = keys
        return args[0].encode()


def test_a_script_that_names_chunks_checks_and_keeps_all_of_them_and_not_its_own_keys() -> None:
    redis = ScriptedRedis()
    script = NamingScript(cast(Redis, redis), "CONDITION", "NAMING")
    assert script(("own 1", "own 2"), ["chunk 1", "chunk 2"], ["outcome"]) == "outcome"
    assert redis.keys == ["own 1", "own 2", "chunk 1", "chunk 2"]
    condition, exists, persists, naming = filter(None, redis.text.split("\n"))
    assert (condition, naming) == ("CONDITION", "NAMING")
    assert exists.startswith("for i = 3, #KEYS do if redis.call('EXISTS'")
    assert persists.startswith("for i = 3, #KEYS do redis.call('PERSIST'")
