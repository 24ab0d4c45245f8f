"""Lack of memory is the photo's own: what a batch has no memory for is tried alone, and rejected only then."""

import signal
import time
from collections.abc import Sequence
from typing import cast

import numpy as np
import pytest

from consumers.encoder import process as encoder_process
from consumers.encoder.answers import Escalation, Result, Task
from consumers.encoder.encoding import Encoding
from consumers.encoder.pool.task_pool import OUT_OF_TIME
from consumers.encoder.pool.worker_process import ProcessDiedError, Program, WorkerProcess
from consumers.encoder.process import encode
from consumers.photos.file import Guard, PhotoFile
from schemas.envelope import Message, announce
from schemas.events.encodings import EncodingRejected, RejectionReason
from schemas.events.registrations import IndividualCreated, Photo
from tests.unit.test_photos import file_of, scene

RESULT = Escalation("for the test")


class Encodes:
    """Has memory for two units of photo; a photo's file says how many it takes."""

    def encode(self, tasks: Sequence[Task], _guards: Sequence[Guard]) -> list[Result]:
        if sum(len(task.photo) for task in tasks) > 2:
            raise MemoryError
        if any(task.photo == b"x" for task in tasks):
            raise RuntimeError("[ONNXRuntimeError] : 1 : FAIL : Failed to allocate memory for requested buffer")
        return [RESULT for _ in tasks]


def task(photo: bytes) -> Task:
    event = IndividualCreated(collection="c", individual_id="x", revision=1, photo=Photo(uri="file:///x"))
    return Task(announce(event, "test"), photo)


def test_what_a_batch_has_no_memory_for_is_tried_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_process, "_encoding", cast(Encoding, Encodes()))
    monkeypatch.setattr(encoder_process, "_seconds_each", 10)
    assert encode([task(b"1"), task(b"22"), task(b"1")]) == [RESULT] * 3
    first, too_large, by_onnxruntime = encode([task(b"1"), task(b"333"), task(b"x")])
    assert first == RESULT
    for result in (too_large, by_onnxruntime):
        assert isinstance(result, Message)
        event = result.event
        assert isinstance(event, EncodingRejected)
        assert event.reason is RejectionReason.PHOTO_TOO_LARGE
        assert "FACEMATCH_ENCODER_MEMORY_MB" in event.detail


def test_what_is_our_fault_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def encode(self, _tasks: Sequence[Task], _guards: Sequence[Guard]) -> list[Result]:
            raise ZeroDivisionError

    monkeypatch.setattr(encoder_process, "_encoding", cast(Encoding, Broken()))
    with pytest.raises(ZeroDivisionError):
        encode([task(b"1")])


def test_a_photo_for_which_memory_does_not_suffice_is_not_called_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it does may depend on what else the process holds."""

    def no_memory(*_: object) -> None:
        raise MemoryError

    photo = PhotoFile(file_of(scene()), 10_000)
    monkeypatch.setattr(np, "asarray", no_memory)
    with pytest.raises(MemoryError):
        photo.at_least(100)


def test_a_photo_has_its_own_processor_time_and_waiting_costs_none_of_it() -> None:
    """The guard arms a timer of processor time, and of a photo's second reading what its first has left."""
    guard = encoder_process._guard(0, 10)
    with guard():
        assert signal.getitimer(signal.ITIMER_PROF)[0] > 9
        begun = time.process_time()
        while time.process_time() - begun < 0.1:
            pass
    assert signal.getitimer(signal.ITIMER_PROF) == (0, 0)
    with guard():
        assert signal.getitimer(signal.ITIMER_PROF)[0] < 9.95


def _begin() -> None:
    pass


def _read_for_ever(_tasks: list[str]) -> list[str]:
    with encoder_process._guard(1, 0.05)():
        while True:
            pass


def test_a_photo_that_used_up_its_processor_time_ends_the_process_which_says_of_which() -> None:
    process: WorkerProcess[str, str] = WorkerProcess(Program(_begin, (), _read_for_ever))
    process.wait_until_begun()
    with pytest.raises(ProcessDiedError) as death:
        process.do(["a", "b"], 60)
    process.close()
    assert (death.value.exit_code, death.value.task) == (OUT_OF_TIME, 1)
