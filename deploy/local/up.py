"""`facematch up`: the local stack in the foreground, each process's lines with its name and colour."""

import itertools
import os
import signal
import threading
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.text import Text

from deploy.local.stack import Stack, hold
from schemas.settings import Settings

_COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "bright_red", "bright_cyan")


def run_up(console: Console, folder: Path) -> None:
    """Run until SIGINT or SIGTERM. Raises StackBusyError where another process already does."""
    colours = dict[str, str]()
    fresh = itertools.cycle(_COLOURS)
    lock = threading.Lock()

    def show(name: str, line: str) -> None:
        with lock:
            colour = colours.setdefault(name, next(fresh))
            console.print(Text.assemble((f"{name:<10} │ ", colour), line), soft_wrap=True)

    stopped = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopped.set()

    with hold(folder):
        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGTERM, stop)
        stack = Stack(folder, show)
        try:
            stack.start_servers(lambda doing: show("facematch", doing))
            os.environ.update(stack.environment)
            if not stopped.is_set():
                stack.start_workers(Settings(), all_kinds=True)
                for name, address in stack.addresses.items():
                    show("facematch", f"{name}={address}")
                show("facematch", "up: `facematch submit PHOTOS`, `facematch duplicates --follow`; Ctrl-C stops")
            stopped.wait()
        finally:
            show("facematch", "stopping")
            stack.stop()
