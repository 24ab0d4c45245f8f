"""A checkpoint that cannot be used is removed, and no other: a process may have been stopped at any call into Redis."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from schemas.settings import Settings
from schemas.shard import Shard
from streams.checkpoint.state import State, state_of
from streams.checkpoint.store import CheckpointStore
from streams.gallery.gallery import Gallery
from tests.simulation.parts import InlineThreads
from tests.simulation.redis import MemoryRedis

SETTINGS = Settings(_env_file=None, namespace="s")
OnCall = Callable[[str], None]


def store(redis: MemoryRedis) -> CheckpointStore:
    """That of one more process."""
    return CheckpointStore(SETTINGS, cast(Any, redis), Shard(), 0, InlineThreads())


def state(offset: int) -> State:
    return state_of(Gallery(), offset)


class SharedRedis(MemoryRedis):
    """A Redis on which another process saves a checkpoint of offset 9 during the call that begins with `at`."""

    def __init__(self, at: str) -> None:
        self.at, self.is_saved = at, False
        super().__init__(self._save_elsewhere)

    def _save_elsewhere(self, call: str) -> None:
        if self.at and call.startswith(self.at):
            self.at = ""
            self.is_saved = store(self).save(state(9), lambda: True)

    def log_end(self) -> int:
        """The other has matched more."""
        return 9 if self.is_saved else 3


@pytest.mark.parametrize("call", ["GET", "SCAN", "HGETALL", "script _unlink"])
def test_a_checkpoint_that_another_process_saves_meanwhile_is_kept_and_loaded(call: str) -> None:
    """Whatever this process, stopped at any of its calls, had taken the one before for."""
    redis = SharedRedis("")
    assert store(redis).save(state(5), lambda: True)  # of another log: this one ends at 3
    redis.at = call
    loaded = store(redis).load(redis.log_end)
    assert redis.is_saved, f"no call begins with {call}"
    assert loaded is not None
    assert loaded.offset == 9


def test_a_checkpoint_of_another_log_is_removed_with_its_chunks() -> None:
    redis = SharedRedis("")
    assert store(redis).save(state(5), lambda: True)
    redis.values["facematch:other"] = b"stays"
    assert store(redis).load(lambda: 3) is None
    assert redis.values == {"facematch:other": b"stays"}
