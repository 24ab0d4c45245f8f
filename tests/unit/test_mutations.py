"""Broken photo files through a pool of real processes: each ends as an encoding or a rejection, and none costs much."""

import contextlib
import itertools
import multiprocessing
import queue
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from consumers.encoder.answers import Result, Task, answer_to
from consumers.encoder.pool.task_pool import TaskFailedError
from consumers.encoder.process import Pool
from consumers.encoder.worker import start_pool
from schemas.encoders.known import FACE_RECOGNITION
from schemas.envelope import announce, encode
from schemas.events.registrations import IndividualCreated, Photo
from schemas.settings import Settings
from tests.mutations import mutated, originals
from tests.records import stored

MEMORY_MB = 700
UNDER_WAY = 8
SECONDS = 10
EVENT = IndividualCreated(collection="c", individual_id="x", revision=1, photo=Photo(uri="file:///x"))
MESSAGE = announce(EVENT, "test")
RECORD = stored(encode(MESSAGE))
Answer = tuple[float, Task, Result | BaseException]


class Run:
    """Files through a pool of two processes, a few under way at any time."""

    def __init__(self, files: Iterator[bytes]) -> None:
        settings = Settings(encoder_memory_mb=MEMORY_MB, routing="cpu")
        self._files = files
        self._pool = start_pool(settings, Pool.CPU, 2, FACE_RECOGNITION)
        self._answers: queue.Queue[Answer] = queue.Queue()
        self._under_way = 0
        self.outcomes: Counter[str] = Counter()
        self.slowest_s = 0.0
        self.most_mb = 0.0

    def until_all_are_answered(self) -> None:
        try:
            self._submit()
            while self._under_way:
                self._pool.poll()
                with contextlib.suppress(queue.Empty):
                    self._settle(*self._answers.get(timeout=0.05))
                    self._submit()
        finally:
            self._pool.close()

    def _submit(self) -> None:
        for data in itertools.islice(self._files, UNDER_WAY - self._under_way):
            task, begun = Task(MESSAGE, data), time.monotonic()
            self._pool.submit(task, partial(self._on_done, begun, task))
            self._under_way += 1

    def _on_done(self, begun: float, task: Task, answer: Result | BaseException) -> None:
        self._answers.put((begun, task, answer))

    def _settle(self, begun: float, task: Task, answer: Result | BaseException) -> None:
        self._under_way -= 1
        self.slowest_s = max(self.slowest_s, time.monotonic() - begun)
        self.most_mb = max(self.most_mb, *(peak_mb(child.pid) for child in multiprocessing.active_children()), 0)
        if isinstance(answer, TaskFailedError):
            self.outcomes["given up"] += 1
        assert not isinstance(answer, BaseException) or isinstance(answer, TaskFailedError), answer
        self.outcomes[answer_to(RECORD, task, answer).record.topic] += 1


def peak_mb(pid: int | None) -> float:
    """The most memory that a process had, in MB; 0 once it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) / 1000 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def through_a_pool(photos: Path, count: int, seed: int) -> None:
    run = Run(mutated(originals(photos), count, seed))
    run.until_all_are_answered()
    print(f"{count} broken files: {dict(run.outcomes)}, slowest {run.slowest_s:.1f} s, {run.most_mb:.0f} MB at most")
    assert run.outcomes["encodings"] + run.outcomes["rejections"] == count
    assert min(run.outcomes["encodings"], run.outcomes["rejections"]) > count / 20, "both are met"
    assert run.slowest_s < SECONDS
    assert run.most_mb < MEMORY_MB


def test_broken_files_end_as_an_encoding_or_a_rejection(photos: Path) -> None:
    through_a_pool(photos, 300, seed=1)


@pytest.mark.faults
def test_ten_thousand_broken_files_end_as_an_encoding_or_a_rejection(photos: Path) -> None:
    through_a_pool(photos, 10_000, seed=2)
