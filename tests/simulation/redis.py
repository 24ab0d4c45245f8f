"""A Redis in memory: the commands and the scripts of `streams.checkpoint`, held against Valkey by a test."""

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from streams.checkpoint import chunks, handover, progress, store

Value = bytes | int | str | memoryview
Script = Callable[["MemoryRedis", Sequence[str], list[bytes]], bytes | int | None]


class MemoryRedis:
    """Strings, hashes and times to live. What a process does is one step: nobody sees half of a script."""

    def __init__(self, on_call: Callable[[str], None] = lambda _: None) -> None:
        self.values: dict[str, bytes | dict[bytes, bytes]] = {}
        self.expiring: set[str] = set()
        self._on_call = on_call

    def get(self, key: str) -> bytes | None:
        self._on_call(f"GET {key}")
        return self._get(key)

    def set(self, key: str, value: Value, ex: int | None = None) -> None:
        self._on_call(f"SET {key}")
        self.values[key] = _bytes(value)
        (self.expiring.discard if ex is None else self.expiring.add)(key)

    def delete(self, *keys: str) -> int:
        self._on_call(f"DEL {' '.join(keys)}")
        return sum(self._remove(key) for key in keys)

    unlink = delete

    def hgetall(self, key: str) -> dict[bytes, bytes]:
        self._on_call(f"HGETALL {key}")
        return dict(self._hash(key))

    def scan_iter(self, match: str, count: int = 10) -> Iterator[bytes]:
        self._on_call(f"SCAN {match}")
        pattern = match.replace("[", "[[]")
        return iter([key.encode() for key in self.values if fnmatch.fnmatchcase(key, pattern)])

    def register_script(self, text: str) -> Callable[..., Any]:
        """Raises KeyError for a script that is not among `SCRIPTS`."""
        script, name = SCRIPTS[text], SCRIPTS[text].__name__

        def run(keys: Sequence[str], args: Sequence[Value]) -> bytes | int | None:
            self._on_call(f"script {name} {' '.join(keys[:2])}")
            return script(self, keys, [_bytes(arg) for arg in args])

        return run

    def close(self) -> None:
        pass

    # what happens to it

    def snapshot(self) -> dict[str, bytes | dict[bytes, bytes]]:
        """All that it holds now."""
        return {key: value if isinstance(value, bytes) else dict(value) for key, value in self.values.items()}

    def restore(self, snapshot: dict[str, bytes | dict[bytes, bytes]]) -> None:
        """Come back from an earlier state: what was written since is lost."""
        self.values = {key: value if isinstance(value, bytes) else dict(value) for key, value in snapshot.items()}
        self.expiring &= self.values.keys()

    def expire(self) -> None:
        """Remove all that has a time to live."""
        for key in list(self.expiring):
            self._remove(key)

    # without a call, for the scripts

    def _get(self, key: str) -> bytes | None:
        value = self.values.get(key)
        assert not isinstance(value, dict), f"WRONGTYPE {key}"
        return value

    def _hash(self, key: str) -> dict[bytes, bytes]:
        value = self.values.get(key, {})
        assert isinstance(value, dict), f"WRONGTYPE {key}"
        return value

    def _remove(self, key: str) -> int:
        self.expiring.discard(key)
        return int(self.values.pop(key, None) is not None)

    def _set_field(self, key: str, field: bytes, value: bytes) -> None:
        self.values[key] = {**self._hash(key), field: value}

    def _remove_field(self, key: str, field: bytes, value: bytes) -> None:
        """Only where it has that value."""
        left = {name: one for name, one in self._hash(key).items() if (name, one) != (field, value)}
        self.values[key] = left
        if not left:
            self._remove(key)

    def _keep_chunks(self, keys: Sequence[str]) -> bool:
        """Whether all are there; then they stay. See `NamingScript`."""
        if any(key not in self.values for key in keys):
            return False
        self.expiring.difference_update(keys)
        return True


def _only_grow(redis: MemoryRedis, keys: Sequence[str], args: list[bytes]) -> None:
    if int(args[0]) > int(redis._get(keys[0]) or -1):
        redis.values[keys[0]] = args[0]
        redis.expiring.discard(keys[0])


def _replace(redis: MemoryRedis, keys: Sequence[str], args: list[bytes]) -> bytes:
    if (redis._get(keys[0]) or b"") != args[0]:
        return b"changed"
    if not redis._keep_chunks(keys[2:]):
        return b"missing"
    redis.values[keys[0]] = args[1]
    redis.expiring.discard(keys[0])
    for field, value in zip(args[2::2], args[3::2], strict=True):
        redis._remove_field(keys[1], field, value)
    return b"replaced"


def _put(redis: MemoryRedis, keys: Sequence[str], args: list[bytes]) -> bytes:
    if redis._get(keys[0]) != args[0]:
        return b"lost"
    if not redis._keep_chunks(keys[2:]):
        return b"missing"
    redis._set_field(keys[1], args[1], args[2])
    return b"put"


def _remove(redis: MemoryRedis, keys: Sequence[str], args: list[bytes]) -> None:
    redis._remove_field(keys[0], args[0], args[1])


def _unlink(redis: MemoryRedis, keys: Sequence[str], args: list[bytes]) -> int:
    if (redis._get(keys[0]) or b"") != args[0]:
        return 0
    for key in keys[1:]:
        redis._remove(key)
    return 1


def _naming(condition: str, naming: str) -> str:
    """The text of a `NamingScript`."""
    return f"{condition}\n{chunks._KEEP_CHUNKS}\n{naming}"


REPLACE, PUT = _naming(store._IF_UNCHANGED, store._REPLACE), _naming(handover._IF_LEASED, handover._PUT)
SCRIPTS: dict[str, Script] = {
    progress._ONLY_GROW: _only_grow,
    REPLACE: _replace,
    PUT: _put,
    handover._REMOVE: _remove,
    handover.UNLINK: _unlink,
}


def _bytes(value: Value) -> bytes:
    return str(value).encode() if isinstance(value, int | str) else bytes(value)
