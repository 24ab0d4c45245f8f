"""A process that dies takes nothing with it: what it was at is tried once more, alone, then given up."""

import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumers.encoder.pool.task_pool import CrashedError, OutOfTimeError, StuckError, TaskPool
from consumers.encoder.pool.worker_process import ProcessDiedError, Program, WorkerProcess, now_at

Answer = tuple[str, "str | BaseException"]


def _nothing() -> str:
    return "begun"


def _die(*_: object) -> None:
    os._exit(7)


def _handle(tasks: list[str]) -> list[str]:
    for number, task in enumerate(tasks):
        if task == "kills":
            os.kill(os.getpid(), signal.SIGSEGV)
        if task.startswith("/") and not Path(task).exists():  # kills the first time only
            Path(task).touch()
            os._exit(1)
        while task.startswith("wait for") and not Path(task.removeprefix("wait for ")).exists():
            time.sleep(0.01)
        if task == "fails":
            raise ZeroDivisionError
        if task == "computes":
            now_at(number)
            signal.setitimer(signal.ITIMER_PROF, 0.05)
            while True:
                pass
        if task == "hangs":
            now_at(number)
            signal.pause()
        if task == "known to kill":
            now_at(number)
            os.kill(os.getpid(), signal.SIGSEGV)
        if len(task) > 1_000_000:
            os.kill(os.getpid(), signal.SIGALRM)
    return [f"{task} by {os.getpid()}, {len(tasks)}" for task in tasks]


class Running:
    def __init__(self, processes: int, batch: int, longest_s: float = 60) -> None:
        self.answers: queue.Queue[Answer] = queue.Queue()
        self.deaths: list[None] = []
        self.pool: TaskPool[str, str] = TaskPool(
            Program(_nothing, (), _handle), processes, batch, longest_s, lambda: self.deaths.append(None)
        )

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
    assert isinstance(answers.pop("kills"), CrashedError)
    assert all(str(answer).startswith(f"{task} by ") for task, answer in answers.items())


def test_a_task_that_a_process_died_of_once_is_tried_again(running: Running, tmp_path: Path) -> None:
    once = str(tmp_path / "seen")
    running.submit(once, "a")
    answers = running.collect(2)
    assert str(answers[once]).startswith(f"{once} by ")


def test_a_task_that_takes_too_much_processor_time_is_given_up_at_once_and_costs_others_nothing(
    tmp_path: Path,
) -> None:
    running = Running(processes=1, batch=4)
    gate = tmp_path / "open"
    try:
        running.submit(f"wait for {gate}")
        running.submit("computes", *(str(number) for number in range(3)))
        gate.touch()
        answers = running.collect(5)
        assert isinstance(answers.pop("computes"), OutOfTimeError)
        assert all(str(answer).startswith(f"{task} by ") for task, answer in answers.items())
        assert len(running.deaths) == 1
    finally:
        running.pool.close()


def test_a_task_that_hangs_is_given_up_the_second_time_and_is_not_called_a_crash() -> None:
    running = Running(processes=1, batch=2, longest_s=0.5)
    try:
        running.submit("hangs", "a")
        answers = running.collect(2)
        assert isinstance(answers["hangs"], StuckError)
        assert str(answers["a"]).startswith("a by ")
    finally:
        running.pool.close()


def test_what_a_process_was_at_is_tried_alone_and_its_company_at_once(tmp_path: Path) -> None:
    running = Running(processes=1, batch=3)
    gate = tmp_path / "open"
    try:
        running.submit(f"wait for {gate}")
        running.submit("a", "known to kill", "b")
        gate.touch()
        answers = running.collect(4)
        assert isinstance(answers.pop("known to kill"), CrashedError)
        assert {str(answers[task]).rpartition(", ")[2] for task in "ab"} <= {"1", "2"}
        assert len(running.deaths) == 2
    finally:
        running.pool.close()


def test_processes_go_on_while_another_one_dies(running: Running, tmp_path: Path) -> None:
    """Those of concurrent.futures die with it."""
    gate = tmp_path / "open"
    running.submit(f"wait for {gate}", "kills")
    assert isinstance(running.collect(1)["kills"], CrashedError)
    gate.touch()
    answer = running.collect(1)[f"wait for {gate}"]
    assert str(answer).startswith("wait for ")
    assert len(running.deaths) == 2, "the one that waits was not started again"


def test_a_process_that_dies_while_large_tasks_are_written_is_no_deadlock(running: Running) -> None:
    """Under Python 3.11.2 ProcessPoolExecutor's is: CPython #94777."""
    large = ["x" * (2_000_000 + number) for number in range(4)]
    running.submit(*large)
    assert all(isinstance(answer, CrashedError) for answer in running.collect(4).values())


def test_a_process_that_is_gone_before_it_is_written_to_is_found_out() -> None:
    process: WorkerProcess[str, str] = WorkerProcess(Program(_nothing, (), _handle))
    assert process.wait_until_begun() == "begun"
    for _ in range(2):
        with pytest.raises(ProcessDiedError):
            process.do(["kills"], 60)
    process.close()


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
        assert isinstance(answers.pop("kills"), CrashedError)
        sizes = {int(str(answer).rpartition(", ")[2]) for answer in answers.values()}
        assert max(sizes) == 4
    finally:
        running.pool.close()


_STARTS_A_POOL = """
import multiprocessing, os, signal, sys
from consumers.encoder.pool.worker_process import Program, WorkerProcess
from tests.unit.test_task_pool import _handle, _nothing
if __name__ == "__main__":
    pool = [WorkerProcess(Program(_nothing, (), _handle)) for _ in range(2)]
    for process in pool:
        process.wait_until_begun()
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
    with pytest.raises(ProcessDiedError):
        TaskPool(Program(_die, (), _handle), processes=1, batch=1, longest_s=60)
