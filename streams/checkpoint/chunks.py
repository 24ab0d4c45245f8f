"""Files in Redis, in chunks with checksums. Until a manifest or an inbox names them they have a time to live."""

import hashlib
import mmap
import os
import uuid
from collections.abc import Container, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO

from redis import Redis

from runtime.telemetry.health import HEALTH
from streams.checkpoint.files import Parts, memory_file
from streams.checkpoint.manifest import Blob, BlobPart, UnusableError

_CHUNK_BYTES = 8 * 2**20
_UNNAMED_FOR_S = 3600  # longer than it takes to write all of a file
_CONNECTIONS = 4
_SAID_EVERY_S = 5.0

# Of a script that names chunks, KEYS[3] and after: they must be there, and stay from then on.
KEEP_CHUNKS = """
for i = 3, #KEYS do if redis.call('EXISTS', KEYS[i]) == 0 then return 'missing' end end
for i = 3, #KEYS do redis.call('PERSIST', KEYS[i]) end
"""


class Chunks:
    """The chunks of one shard's partition. Raises OutOfMemoryError where Redis is full.

    The names of those that this process writes begin with `writer`.
    """

    def __init__(self, redis: Redis, prefix: str, writer: str = "") -> None:
        self._redis = redis
        self._prefix = prefix
        self._writer = writer
        self._threads = ThreadPoolExecutor(_CONNECTIONS, thread_name_prefix="chunks")

    def key(self, chunk: str) -> str:
        """The key of a chunk."""
        return f"{self._prefix}:{chunk}"

    def put(self, parts: Parts) -> Blob:
        """Write files and close them. What was written of a blob that fails is removed."""
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
        """Read files, all chunks at once. Raises UnusableError where one is missing or differs."""
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
        """Of all that are there of this writer; of all writers where it has no name."""
        found = self._redis.scan_iter(match=self.key(f"{self._writer}*"), count=1000)
        return [key.decode().removeprefix(f"{self._prefix}:") for key in found]

    def remove_others(self, named: Container[str]) -> None:
        """Remove every chunk that is not named."""
        self.remove(chunk for chunk in self.names() if chunk not in named)

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
    """Wait for all, since they use files that will be closed; then raise what the first that failed raised.

    They wait for a Redis that is away in threads of their own, whose word for it does not count.
    """
    while wait(under_way, timeout=_SAID_EVERY_S).not_done:
        HEALTH.still_waiting()
    for one in under_way:
        one.result()
