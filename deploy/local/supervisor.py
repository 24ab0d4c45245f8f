"""Runs child processes by name: passes on their lines, starts again those that die, stops all in order.

honcho, which does most of this, ends everything as soon as one process ends, and starts all at once; here
a worker that dies is started again, and servers are up before workers and down after them.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from deploy.local.folders import UMASK
from runtime.servers.patience import growing_pauses

OnLine = Callable[[str, str], None]
_FIRST_PAUSE_S = 0.5
_LONG_RUN_S = 60.0  # what ran for so long does not die of how it starts
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """Linux only: have the kernel send SIGTERM when the thread that started this process is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass(eq=False)
class Child:
    """One process that is kept running. `restarts` counts how often it had to be started again."""

    name: str
    command: Sequence[str]
    on_line: OnLine
    env: Mapping[str, str]
    stop_signal: signal.Signals = signal.SIGTERM
    restarts: int = 0
    process: "subprocess.Popen[str] | None" = None
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether the process lives at this moment."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it, and keep it started."""
        self._stopping.clear()
        started = threading.Event()
        self._thread = threading.Thread(target=self._keep, args=(started,), name=self.name, daemon=True)
        self._thread.start()
        started.wait()

    def kill(self) -> None:
        """SIGKILL, as a crash would; it is started again."""
        self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Send a signal to the process and its children."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def stop(self, grace_s: float = 20.0) -> None:
        """Ask it to stop, SIGKILL it after `grace_s` seconds; returns once it is gone."""
        self._stopping.set()
        if self.process is not None and self.running:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(self.stop_signal)
            try:
                self.process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self.on_line(self.name, f"did not stop within {grace_s:.0f} s: killed")
            self.signal(signal.SIGKILL)
        if self._thread is not None:
            self._thread.join()

    def _keep(self, started: threading.Event) -> None:
        pauses = growing_pauses(_FIRST_PAUSE_S)
        while True:
            begun = time.monotonic()
            status = self._run_once(started)
            if self._stopping.is_set():
                return
            if time.monotonic() - begun > _LONG_RUN_S:
                pauses = growing_pauses(_FIRST_PAUSE_S)
            pause = next(pauses)
            self.on_line(self.name, f"ended with status {status}; started again in {pause:.1f} s")
            if self._stopping.wait(pause):
                return
            self.restarts += 1

    def _run_once(self, started: threading.Event) -> int:
        process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=dict(self.env),
            umask=UMASK,
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - it allocates nothing and takes no lock
        )
        self.process = process
        started.set()
        if self._stopping.is_set():  # `stop` came while it was being started, and saw the one before
            process.kill()
        lines = threading.Thread(target=self._pass_on, args=(process,), name=f"{self.name} lines", daemon=True)
        lines.start()
        status = process.wait()
        self.signal(signal.SIGKILL)  # what it started and left behind
        lines.join()
        return status

    def _pass_on(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                with contextlib.suppress(OSError):  # a full disk takes no line; the child, whose pipe is read, goes on
                    self.on_line(self.name, line.rstrip("\n"))


class Supervisor:
    """A set of children, stopped together in the reverse order of their start."""

    def __init__(self, on_line: OnLine) -> None:
        self._on_line = on_line
        self.children: dict[str, Child] = {}

    def start(
        self,
        name: str,
        command: Sequence[str],
        env: Mapping[str, str] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> Child:
        """Start a child of that name."""
        child = Child(name, command, self._on_line, env or os.environ, stop_signal)
        self.children[name] = child
        child.start()
        return child

    def stop(self) -> None:
        """Stop all. A second interrupt while it waits kills what is left."""
        for child in reversed(self.children.values()):
            child.stop()
        self.children.clear()
