"""Ports that are taken are no obstacle; children are kept running, and stopped."""

import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from deploy.local import supervisor as supervisors
from deploy.local.folders import private_folder
from deploy.local.ports import free_ports, is_free
from deploy.local.stack import Stack, StackBusyError, hold
from deploy.local.supervisor import Child, Supervisor
from runtime.photo_roots import allow


def test_free_ports_are_different_and_free() -> None:
    ports = free_ports(4)
    assert len(set(ports)) == 4
    assert all(is_free(port) for port in ports)


def test_the_ports_of_last_time_are_taken_again_unless_one_is_taken_by_another(tmp_path: Path) -> None:
    stack = Stack(tmp_path, lambda *_: None)
    env_file = tmp_path / "stack.env"
    ports = stack._ports(env_file)
    assert len(set(ports.values())) == 4 + 6  # servers, and workers: one of each kind
    env_file.write_text("# ports: " + " ".join(f"{name}={port}" for name, port in ports.items()) + "\n")
    assert stack._ports(env_file) == ports
    with socket.create_server(("127.0.0.1", ports["postgres"])):
        assert ports["postgres"] not in stack._ports(env_file).values()


def test_a_folder_has_one_stack(tmp_path: Path) -> None:
    with hold(tmp_path), pytest.raises(StackBusyError, match="already running"), hold(tmp_path):
        pass
    with hold(tmp_path):
        pass


def test_a_child_that_dies_is_started_again_and_its_lines_are_passed_on() -> None:
    lines: list[tuple[str, str]] = []
    three = threading.Event()

    def on_line(name: str, line: str) -> None:
        lines.append((name, line))
        if lines.count(("w", "hello")) == 3:
            three.set()

    supervisor = Supervisor(on_line)
    child = supervisor.start("w", [sys.executable, "-c", "print('hello')"])
    assert three.wait(30), lines
    supervisor.stop()
    assert not child.running
    assert child.restarts >= 2


def test_stop_ends_a_child_that_ignores_sigterm_and_what_it_started() -> None:
    ready = threading.Event()
    program = (
        "import signal, subprocess, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "p = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()']); "
        "print(p.pid, flush=True); signal.pause()"
    )
    started: list[int] = []

    def on_line(_name: str, line: str) -> None:
        if line.isdigit():
            started.append(os.pidfd_open(int(line)))
            ready.set()

    supervisor = Supervisor(on_line)
    child = supervisor.start("stubborn", [sys.executable, "-c", program])
    assert ready.wait(30)
    child.stop(grace_s=0.2)
    assert not child.running
    with os.fdopen(started[0], "rb") as its_end:  # Linux closes its files, which `stop` waits for, a moment before
        assert select.select([its_end], [], [], 10)[0], "what the child started goes on"


def test_stop_ends_a_child_that_is_being_started_again_at_that_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = Supervisor(lambda *_: None)
    stopper = threading.Thread(target=supervisor.stop)
    second = threading.Event()
    start = subprocess.Popen
    starts = 0

    def popen(*arguments: Any, **options: Any) -> Any:
        nonlocal starts
        starts += 1
        if starts == 2:
            stopper.start()
            second.set()
            child._stopping.wait(5)
            stopper.join(0.2)  # it looks at the process before, which has ended
        return start(*arguments, **options)

    script = "import os, sys, time; time.sleep(60) if os.path.exists(sys.argv[1]) else open(sys.argv[1], 'w')"
    monkeypatch.setattr(supervisors, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(subprocess, "Popen", popen)
    with tempfile.TemporaryDirectory() as folder:
        child = Child("again", [sys.executable, "-c", script, f"{folder}/started"], lambda *_: None, os.environ)
        supervisor.children["again"] = child
        child.start()
        assert second.wait(20)
        stopper.join(20)
        assert not stopper.is_alive()


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_stacks_folder_is_closed_to_others_and_those_above_it_stay_as_they_are(tmp_path: Path) -> None:
    above = tmp_path / "above"
    above.mkdir(mode=0o750)
    folder = above / "stack"
    folder.mkdir(mode=0o755)  # as an earlier version left it
    assert mode_of(private_folder(folder)) == 0o700
    assert mode_of(private_folder(folder / "kafka")) == 0o700
    assert mode_of(above) == 0o750


def test_what_a_child_writes_is_its_owners_alone(tmp_path: Path) -> None:
    written, file = threading.Event(), tmp_path / "file"
    supervisor = Supervisor(lambda *_: written.set())
    supervisor.start("w", [sys.executable, "-c", f"import pathlib; pathlib.Path({str(file)!r}).touch(); print('done')"])
    assert written.wait(30)
    supervisor.stop()
    assert mode_of(file) == 0o600


def test_what_commands_write_is_its_owners_alone(tmp_path: Path) -> None:
    allow(tmp_path / "data", {"file:///home/somebody/"})
    assert (mode_of(tmp_path / "data"), mode_of(tmp_path / "data" / "photo-roots")) == (0o700, 0o600)
