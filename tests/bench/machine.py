"""What a benchmark says of the machine it ran on, and how it prints."""

import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from runtime.telemetry import logs


def begin_benchmark() -> None:
    """Print what machine this is: processor, cores, memory, Python. What is logged goes beside the tables."""
    logs.configure(logs.Log("text"))
    information = Path("/proc/cpuinfo").read_text()
    names = [line.partition(":")[2].strip() for line in information.splitlines() if line.startswith("model name")]
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    processor = names[0] if names else platform.machine()
    print(f"{processor}, {cores} cores, {gigabytes:.0f} GiB, Python {platform.python_version()}")


def say(line: str) -> None:
    """What goes on, beside the tables."""
    print(line, file=sys.stderr, flush=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table in Markdown, as it stands in the README."""
    widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns))]
    lines = [columns, ["-" * width for width in widths], *rows]
    print()
    for line in lines:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |", flush=True)
