"""Files in Redis, in chunks with checksums. Chunks expire unless a manifest or an inbox names them."""

import hashlib
import mmap
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO

from redis import Redis

from runtime.telemetry.health import HEALTH
from streams.checkpoint.files import Parts, memory_file
from streams.checkpoint.manifest import Blob, BlobPart, UnusableError

_CHUNK_BYTES = 8 * 2**20  # written and read in milliseconds: Redis serves others in between
_UNNAMED_FOR_S = 3600  # the time to live of a chunk that nothing names yet: longer than any checkpoint is written
_CONNECTIONS = 4
_BEATS_EVERY_S = 5.0

_OWN_KEYS = 2
# KEYS after a script's own are those of chunks: all must be there, and lose their time to live.
_KEEP_CHUNKS = f"""
for i = {_OWN_KEYS + 1}, #KEYS do if redis.call('EXISTS', KEYS[i]) == 0 then return 'missing' end end
for i = {_OWN_KEYS + 1}, #KEYS do redis.call('PERSIST', KEYS[i]) end
"""


class NamingScript:
    """A Lua script that names chunks in a value of Redis, in one step.

    `condition` is run first and may return; then 'missing' is returned unless every chunk is there; then the chunks are
    kept without limit, and `naming` is run. Both have KEYS[1] and KEYS[2].
    """

    def __init__(self, redis: Redis, condition: str, naming: str) -> None:
        self._script = redis.register_script(f"{condition}\n{_KEEP_CHUNKS}\n{naming}")

    def __call__(self, keys: tuple[str, str], chunk_keys: Iterable[str], args: Sequence[str | bytes]) -> str:
        """What the script returns. `chunk_keys`: of the chunks that it names."""
        assert len(keys) == _OWN_KEYS
        outcome = self._script(keys=[*keys, *chunk_keys], args=args)
        assert isinstance(outcome, bytes)
        return outcome.decode()


class Chunks:
    """The chunks of one shard's partition. Raises OutOfMemoryError where Redis is full.

    The names of the chunks that this process writes begin with `writer`. Several are read and written at once, in
    `threads`.
    """

    def __init__(self, redis: Redis, prefix: str, writer: str = "", threads: Executor | None = None) -> None:
        self._redis = redis
        self._prefix = prefix
        self._writer = writer
        self._threads = threads or ThreadPoolExecutor(_CONNECTIONS, thread_name_prefix="chunks")

    def key(self, chunk: str) -> str:
        """The key of a chunk."""
        return f"{self._prefix}:{chunk}"

    def put(self, parts: Parts) -> Blob:
        """Write files and close them. If one fails, the chunks written so far are removed."""
        blob_id = self._writer + uuid.uuid4().hex
        written: dict[str, BlobPart] = {}
        try:
            with ExitStack() as stack:
                for file in parts.values():
                    stack.enter_context(file)
                for name, file in parts.items():
                    written[name] = self._put_part(f"{blob_id}:{name}", file)
        except BaseException:
            self.remove(Blob(id=blob_id, parts=written).chunks())
            raise
        return Blob(id=blob_id, parts=written)

    @contextmanager
    def files_of(self, blob: Blob) -> Iterator[Parts]:
        """Read files, several chunks at once. Raises UnusableError where a chunk is missing or differs."""
        with ExitStack() as stack:
            files = {name: stack.enter_context(memory_file()) for name in blob.parts}

            def fetch(name: str, number: int, chunk: str) -> None:
                value = self._redis.get(self.key(chunk))
                if not isinstance(value, bytes):
                    raise UnusableError(f"chunk {chunk} is missing")
                if hashlib.sha256(value).hexdigest() != blob.parts[name].checksums[number]:
                    raise UnusableError(f"chunk {chunk} is corrupt")
                os.pwrite(files[name].fileno(), value, number * _CHUNK_BYTES)

            under_way = [
                self._threads.submit(fetch, name, number, chunk)
                for name in blob.parts
                for number, chunk in enumerate(blob.chunks_of(name))
            ]
            _raise_first(under_way)
            yield files

    def remove(self, chunks: Iterable[str]) -> None:
        """Remove chunks that nothing names any more."""
        keys = [self.key(chunk) for chunk in chunks]
        if keys:
            self._redis.unlink(*keys)

    def names(self) -> list[str]:
        """The names of all chunks of this writer in Redis; of all writers where it has no name."""
        found = self._redis.scan_iter(match=self.key(f"{self._writer}*"), count=1000)
        return [key.decode().removeprefix(f"{self._prefix}:") for key in found]

    def _put_part(self, name: str, file: BinaryIO) -> BlobPart:
        size = os.fstat(file.fileno()).st_size
        with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as whole, memoryview(whole) as view:

            def store(begin: int) -> str:
                with view[begin : begin + _CHUNK_BYTES] as piece:
                    self._redis.set(self.key(f"{name}:{begin // _CHUNK_BYTES}"), piece, ex=_UNNAMED_FOR_S)
                    return hashlib.sha256(piece).hexdigest()

            under_way = [self._threads.submit(store, begin) for begin in range(0, size, _CHUNK_BYTES)]
            try:
                _raise_first(under_way)
            except BaseException:
                self.remove(f"{name}:{number}" for number in range(len(under_way)))
                raise
            return BlobPart(checksums=tuple(one.result() for one in under_way))


def _raise_first(under_way: "list[Future[Any]]") -> None:
    """Wait for all, since they use files that will be closed; then raise what the first failed one raised.

    They wait for a Redis that is away in threads whose beats do not count, so this one beats meanwhile.
    """
    while wait(under_way, timeout=_BEATS_EVERY_S).not_done:
        HEALTH.still_waiting()
    for one in under_way:
        one.result()
