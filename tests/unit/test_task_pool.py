"""A process that dies takes nothing with it: what was under way is tried once more, alone, then given up."""

import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import pytest

from consumers.encoder.pool.task_pool import DiedError, TaskPool, process_pool

Answer = tuple[str, "str | BaseException"]


def _nothing() -> None:
    pass


def _die(*_: object) -> None:
    os._exit(7)


def _handle(tasks: list[str]) -> list[str]:
    for task in tasks:
        if task == "kills":
            os.kill(os.getpid(), signal.SIGSEGV)
        if task.startswith("/") and not Path(task).exists():  # kills the first time only
            Path(task).touch()
            os._exit(1)
        while task.startswith("wait for") and not Path(task.removeprefix("wait for ")).exists():
            time.sleep(0.01)
        if task == "fails":
            raise ZeroDivisionError
        if task == "slow":
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            time.sleep(30)
    return [f"{task} by {os.getpid()}, {len(tasks)}" for task in tasks]


class Running:
    def __init__(self, processes: int, batch: int) -> None:
        self.answers: queue.Queue[Answer] = queue.Queue()
        self.pool: TaskPool[str, str] = TaskPool(partial(process_pool, processes, _nothing), _handle, processes, batch)

    def submit(self, *tasks: str) -> None:
        for task in tasks:
            self.pool.submit(task, lambda answer, task=task: self.answers.put((task, answer)))  # type: ignore[misc]

    def collect(self, count: int) -> dict[str, str | BaseException]:
        """As the step does: poll, and see what came."""
        found: dict[str, str | BaseException] = {}
        deadline = time.monotonic() + 60
        while len(found) < count:
            assert time.monotonic() < deadline, found
            self.pool.poll()
            try:
                task, answer = self.answers.get(timeout=0.05)
            except queue.Empty:
                continue
            assert task not in found, "answered twice"
            found[task] = answer
        return found


@pytest.fixture
def running() -> Iterator[Running]:
    running = Running(processes=2, batch=1)
    yield running
    running.pool.close()


def test_every_task_is_answered_by_several_processes(running: Running) -> None:
    running.submit(*(str(number) for number in range(200)))
    answers = running.collect(200)
    assert all(str(answer).startswith(f"{task} by ") for task, answer in answers.items())


def test_a_task_that_kills_its_process_is_given_up_and_the_others_are_done(running: Running) -> None:
    running.submit("a", "b", "kills", *(str(number) for number in range(30)))
    answers = running.collect(33)
    assert isinstance(answers.pop("kills"), DiedError)
    assert all(str(answer).startswith(f"{task} by ") for task, answer in answers.items())


def test_a_task_that_a_process_died_of_once_is_tried_again(running: Running, tmp_path: Path) -> None:
    once = str(tmp_path / "seen")
    running.submit(once, "a")
    answers = running.collect(2)
    assert str(answers[once]).startswith(f"{once} by ")


def test_a_task_that_takes_too_long_is_given_up(running: Running) -> None:
    running.submit("slow", "a")
    assert isinstance(running.collect(2)["slow"], DiedError)


def test_what_fails_is_handed_on(running: Running) -> None:
    running.submit("fails", "a")
    assert isinstance(running.collect(2)["fails"], ZeroDivisionError)


def test_what_waits_is_handed_over_in_batches_and_a_death_in_one_is_of_one_task(tmp_path: Path) -> None:
    running = Running(processes=1, batch=4)
    gate = tmp_path / "open"
    try:
        running.submit(f"wait for {gate}", *(str(number) for number in range(20)), "kills")
        gate.touch()
        answers = running.collect(22)
        assert isinstance(answers.pop("kills"), DiedError)
        sizes = {int(str(answer).rpartition(", ")[2]) for answer in answers.values()}
        assert max(sizes) == 4
    finally:
        running.pool.close()


_STARTS_A_POOL = """
import multiprocessing, os, signal, sys
from consumers.encoder.pool.task_pool import process_pool
from tests.unit.test_task_pool import _nothing
if __name__ == "__main__":
    pool = process_pool(2, _nothing)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_processes_end_with_the_one_that_started_them_however_that_ends(tmp_path: Path) -> None:
    script = tmp_path / "starts_a_pool.py"
    script.write_text(_STARTS_A_POOL)
    env = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        [sys.executable, str(script)], env=env, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 2
    deadline = time.monotonic() + 20
    while any(lives(pid) for pid in pids):
        assert time.monotonic() < deadline, "the processes live on"
        time.sleep(0.05)


def lives(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_processes_that_cannot_start_are_an_error_not_a_wait() -> None:
    with pytest.raises(BrokenProcessPool):
        process_pool(1, _die)
