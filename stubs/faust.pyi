"""The part of faust-streaming 0.15 that is used here: https://github.com/faust-streaming/faust/tree/master/faust."""

import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from os import PathLike
from typing import Any, TypeVar

from mode import CrashingSupervisor

_F = TypeVar("_F", bound=Callable[..., Awaitable[None]])

class SASLCredentials:
    def __init__(
        self,
        *,
        username: str | None = None,
        password: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        mechanism: str | None = None,
    ) -> None: ...

class SSLCredentials:
    def __init__(self, context: ssl.SSLContext | None = None) -> None: ...

class _Message:
    """A record of Kafka. `timestamp` is in seconds since 1970."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    partition: int
    offset: int
    timestamp: float

class EventT:
    message: _Message
    def ack(self) -> bool: ...

class Stream:
    def noack(self) -> Stream: ...
    def events(self) -> AsyncIterator[EventT]: ...

class TopicT: ...

class _TopicPartition:
    topic: str
    partition: int

class _Consumer:
    def assignment(self) -> set[_TopicPartition]: ...

class _Signal:
    def connect(self, fun: Callable[..., Awaitable[None]], *, weak: bool = True) -> object: ...

class App:
    consumer: _Consumer
    on_partitions_revoked: _Signal
    on_rebalance_complete: _Signal
    def __init__(
        self,
        id: str,
        *,
        broker: str,
        broker_credentials: SASLCredentials | SSLCredentials | None,
        store: str,
        datadir: PathLike[str],
        web_enabled: bool,
        topic_disable_leader: bool,
        topic_allow_declare: bool,
        table_standby_replicas: int,
        stream_wait_empty: bool,
        consumer_auto_offset_reset: str,
        broker_commit_interval: float,
        broker_session_timeout: float,
        agent_supervisor: type[CrashingSupervisor],
        worker_redirect_stdouts: bool,
    ) -> None: ...
    def topic(
        self,
        *topics: str,
        key_type: type[bytes],
        value_type: type[bytes],
        key_serializer: str,
        value_serializer: str,
    ) -> TopicT: ...
    def agent(
        self, channel: TopicT, *, name: str, concurrency: int = 1
    ) -> Callable[[Callable[[Stream], Awaitable[None]]], object]: ...
    def task(self, fun: _F) -> _F: ...
    def timer(self, interval: float, *, name: str | None = None) -> Callable[[_F], _F]: ...
    async def crash(self, reason: BaseException) -> None: ...

class Worker:
    spinner: Any
    def __init__(
        self,
        app: App,
        *,
        override_logging: bool,
        redirect_stdouts: bool,
        quiet: bool,
        loglevel: str | int | None,
    ) -> None: ...
    def _schedule_shutdown(self, signal: signal.Signals) -> None: ...
    def _crash(self, reason: BaseException) -> None: ...
    def execute_from_commandline(self) -> None: ...
