"""What all benchmarks share: their size, the line about the machine, and Markdown tables."""

import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from runtime.telemetry import logs

T = TypeVar("T")


def sized(full: T, small: T) -> T:
    """The size of a benchmark: `small` where the variable SMALL is set, which takes seconds and shows that it runs."""
    return small if os.environ.get("SMALL") else full


def begin_benchmark() -> None:
    """Print the machine's processor, cores, memory and Python. Log lines go to stderr, beside the tables."""
    logs.configure(logs.LogStyle("text"))
    information = Path("/proc/cpuinfo").read_text()
    names = [line.partition(":")[2].strip() for line in information.splitlines() if line.startswith("model name")]
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    processor = names[0] if names else platform.machine()
    print(f"{processor}, {cores} cores, {gigabytes:.0f} GiB, Python {platform.python_version()}")
    if sized(full=False, small=True):
        print("SMALL: this shows that the benchmark runs; its figures mean nothing")


def report(line: str) -> None:
    """Report progress on stderr, beside the tables."""
    print(line, file=sys.stderr, flush=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table in Markdown, as it stands in the documents."""
    widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns))]
    lines = [columns, ["-" * width for width in widths], *rows]
    print()
    for line in lines:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |", flush=True)
