"""The local stack: servers, then topics and tables, then workers, under one folder."""

import contextlib
import fcntl
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import ConsumerGroupState
from confluent_kafka.admin import (  # type: ignore[attr-defined] # both are exported
    AdminClient,
    ConsumerGroupDescription,
)

from deploy.local.faults import LocalStackError
from deploy.local.folders import private_folder
from deploy.local.ports import free_ports, is_free
from deploy.local.servers import Server, prepare_kafka, prepare_postgres, prepare_redis
from deploy.local.supervisor import Child, OnLine, Supervisor
from deploy.local.targets import write_targets
from deploy.setup.everything import set_up
from producers.outbox.table import create_outbox
from runtime.servers.kafka import client_config, is_transient
from runtime.telemetry import logs
from schemas.envelope import full_name
from schemas.settings import Settings
from schemas.topics import CONSUMER_GROUPS

WORKERS = {
    "encode-cpu": ("encode", "--pool", "cpu"),
    "encode-gpu": ("encode", "--pool", "gpu"),
    "match": ("match",),
    "sink": ("sink",),
    "outbox": ("outbox",),
    "compactor": ("compactor",),
}
_OPTIONAL = ("outbox", "compactor")
_SERVERS = ("kafka", "kafka_controller", "postgres", "redis")
_PORTS = (*_SERVERS, *WORKERS)


class StackBusyError(LocalStackError):
    """Another process runs the stack of this folder."""


class Stack:
    """Servers and workers as children of this process.

    `addresses` are environment variables with which `Settings` finds the servers; `start_servers` also leaves
    them, and the key of the erased, in `stack.env` in the folder, for every other `facematch` command that is run
    beside it. `start_workers` leaves in `targets.json` where the metrics of each worker are, as Prometheus reads it
    (file_sd_config).
    """

    def __init__(self, folder: Path, on_line: OnLine) -> None:
        self.folder = folder.resolve()
        self.supervisor = Supervisor(on_line)
        self.addresses: dict[str, str] = {}
        self.workers: list[Child] = []
        self._erasure_key = ""
        self._ports_taken: dict[str, int] = {}
        self._servers: dict[str, Server] = {}

    def start_servers(self, report: Callable[[str], None]) -> None:
        """Prepare and start the three servers and return once they answer."""
        private_folder(self.folder)
        env_file = self.folder / "stack.env"
        ports = self._ports_taken = self._ports(env_file)
        report("preparing Kafka, PostgreSQL and Valkey (the first time, Kafka's jars are fetched)")
        servers = self.prepare(ports)
        for server in servers:
            self._servers[server.name] = server
            self.supervisor.start(server.name, server.command, stop_signal=server.stop_signal)
        for server in servers:
            report(f"waiting for {server.name}")
            self.wait_for_server(server.name)
        self.addresses = {
            "FACEMATCH_KAFKA": f"127.0.0.1:{ports['kafka']}",
            "FACEMATCH_REDIS": f"redis://127.0.0.1:{ports['redis']}/0",
            "FACEMATCH_POSTGRES": f"postgresql+psycopg2://postgres@127.0.0.1:{ports['postgres']}/facematch",
        }
        self._erasure_key = _erasure_key(self.folder / "erasure.key")
        ports_line = "# ports: " + " ".join(f"{name}={ports[name]}" for name in _PORTS)
        lines = [ports_line, *(f"{name}={value}" for name, value in self.environment.items())]
        env_file.touch(mode=0o600)
        env_file.write_text("\n".join(lines) + "\n")

    def prepare(self, ports: Mapping[str, int]) -> tuple[Server, ...]:
        """The three servers, on those ports."""
        return (
            prepare_redis(self.folder / "redis", ports["redis"]),
            prepare_postgres(self.folder / "postgres", ports["postgres"]),
            prepare_kafka(self.folder / "kafka", ports["kafka"], ports["kafka_controller"]),
        )

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which `Settings` is that of the stack: the addresses, and the key of the erased."""
        return {**self.addresses, "FACEMATCH_ERASURE_KEY": self._erasure_key}

    def wait_for_server(self, name: str, limit_s: float = 120) -> None:
        """Return once a server answers. Raises LocalStackError."""
        deadline = time.monotonic() + limit_s
        while not self._servers[name].ready():
            if time.monotonic() > deadline:
                raise LocalStackError(f"{name} did not answer within {limit_s:.0f} s; its log lines say why")
            time.sleep(0.05)

    def start_worker(self, name: str, *arguments: str, env: dict[str, str] | None = None) -> Child:
        """Start `facematch ARGUMENTS` as a worker of that name."""
        command = [sys.executable, "-m", "deploy.cli", *(arguments or WORKERS[name])]
        form = {"FACEMATCH_LOG": logs.format_of_workers()}  # they write to this process, which passes their lines on
        return self.supervisor.start(name, command, env={**os.environ, **form, **self.environment, **(env or {})})

    def start_workers(self, settings: Settings, all_kinds: bool, encoder: str | None = None) -> str:
        """Create topics and tables, then start one worker of each kind that a photo passes.

        `all_kinds`: also the outbox's relay and the compactor. `encoder`: of a new deployment. Returns the one it has.
        """
        chosen = set_up(settings, encoder=encoder)
        workers = {name: arguments for name, arguments in WORKERS.items() if all_kinds or name not in _OPTIONAL}
        if all_kinds:
            create_outbox(settings)
        http = {name: f"127.0.0.1:{self._ports_taken[name]}" for name in workers}
        write_targets(self.folder, http)
        self.workers = [
            self.start_worker(name, *arguments, env={"FACEMATCH_HTTP": http[name]})
            for name, arguments in workers.items()
        ]
        return chosen

    def wait_for_workers(self, settings: Settings, limit_s: float = 120) -> None:
        """Return once every consumer group has its partitions. Raises LocalStackError."""
        admin = AdminClient(client_config(settings, "stack"))
        deadline = time.monotonic() + limit_s
        waiting = {full_name(group.name, settings.namespace) for group in CONSUMER_GROUPS}
        while waiting:
            for name, description in admin.describe_consumer_groups(sorted(waiting), request_timeout=5).items():
                error = description.exception()
                if error is None and _is_at_work(description.result()):
                    waiting.remove(name)
                elif error is not None and not is_transient(error.args[0]):
                    raise error
            if time.monotonic() > deadline:
                raise LocalStackError(
                    f"not at work within {limit_s:.0f} s: {', '.join(sorted(waiting))}; see their lines"
                )
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop workers, then servers."""
        self.supervisor.stop()

    def _ports(self, env_file: Path) -> dict[str, int]:
        """The ports of last time where they are still free, so that addresses stay; else others."""
        before: dict[str, int] = {}
        if env_file.exists():
            for word in env_file.read_text().partition("\n")[0].removeprefix("# ports: ").split():
                name, _, port = word.partition("=")
                before[name] = int(port)
        if set(before) == set(_PORTS) and all(is_free(port) for port in before.values()):
            return before
        return dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))


def _erasure_key(file: Path) -> str:
    """The stack's own, made once, unless one is set."""
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(secrets.token_hex(32))
    return os.environ.get("FACEMATCH_ERASURE_KEY") or file.read_text()


def _is_at_work(group: ConsumerGroupDescription) -> bool:
    return bool(group.members) and group.state == ConsumerGroupState.STABLE


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: only one process runs a stack in it. Raises StackBusyError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackBusyError(f"a stack is already running in {folder}: stop it first, or use it as it is") from None
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def stop_running(folder: Path, limit_s: float = 60) -> bool:
    """Stop the process that runs a stack in the folder; returns whether there was one. Raises LocalStackError."""
    try:
        with hold(folder):
            return False
    except StackBusyError:
        pass
    os.kill(int((folder / "lock").read_text()), signal.SIGTERM)
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        with contextlib.suppress(StackBusyError), hold(folder):
            return True
        time.sleep(0.1)
    raise LocalStackError(f"the stack in {folder} did not stop within {limit_s:.0f} s")
