"""What processes need: their memory and open files, and how these grow."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from deploy.local.supervisor import Child


@dataclass(slots=True)
class Peak:
    """The most that a process of a name had: memory in MB, open files, threads."""

    memory: int = 0
    files: int = 0
    threads: int = 0


class Monitor:
    """Looks at processes whenever `look` is called, and remembers the most that each needed."""

    def __init__(self) -> None:
        self._peaks: dict[str, Peak] = {}

    def look(self, children: Iterable[Child]) -> None:
        """Those that run at this moment, without their own children."""
        for child in children:
            if child.process is None:
                continue
            folder = Path(f"/proc/{child.process.pid}")
            try:
                status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
                files = sum(1 for _ in (folder / "fd").iterdir())
                memory, threads = int(status["VmRSS"].split()[0]) // 1024, int(status["Threads"])
            except (OSError, KeyError):
                continue  # it has ended
            peak = self._peaks.setdefault(child.name, Peak())
            peak.memory, peak.files = max(peak.memory, memory), max(peak.files, files)
            peak.threads = max(peak.threads, threads)

    def __str__(self) -> str:
        return "; ".join(
            f"{name} {peak.memory} MB, {peak.files} files, {peak.threads} threads" for name, peak in self._peaks.items()
        )
