"""Log lines: JSON or text, ours and those of libraries alike, and nothing of a photo or an embedding in either."""

import base64
import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import structlog

from runtime.telemetry import logs
from runtime.telemetry.log_fields import about
from runtime.telemetry.redaction import LONGEST_TEXT, redacted, redacted_text
from runtime.telemetry.tracing import traced
from schemas.envelope import announce
from schemas.events.registrations import IndividualDeleted
from schemas.settings import LogFormat
from tests.conftest import Make

PHOTO = np.random.default_rng(1).bytes(3000)
BEGIN = "from runtime.telemetry import logs; logs.configure(logs.LogStyle()); logs.become_worker('w', 'n')\n"
TEXT = base64.b64encode(PHOTO).decode()


class Colour(StrEnum):
    RED = "red"


class Lines:
    """What is written at INFO, by our loggers and by others."""

    def __init__(self, log: logs.LogStyle) -> None:
        self.stream = io.StringIO()
        handler = logging.StreamHandler(self.stream)
        handler.setFormatter(logs.formatter(log))
        self.library = logging.getLogger("tests.library")
        self.library.handlers = [handler]
        self.library.propagate = False
        self.library.setLevel(logging.INFO)
        self.ours = structlog.stdlib.get_logger("tests.library")

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def last(self) -> dict[str, Any]:
        return dict(json.loads(self.text.splitlines()[-1]))


@pytest.fixture(params=["json", "text"])
def form(request: pytest.FixtureRequest) -> LogFormat:
    chosen: LogFormat = request.param
    return chosen


@pytest.fixture
def lines(form: LogFormat) -> Iterator[Lines]:
    found = Lines(logs.LogStyle(form, fields={"worker": "w", "namespace": "n"}))
    yield found
    found.library.handlers = []


@pytest.fixture
def as_json() -> Iterator[Lines]:
    found = Lines(logs.LogStyle("json", fields={"worker": "w", "namespace": "n"}))
    yield found
    found.library.handlers = []


def test_a_line_names_what_it_is_about(as_json: Lines) -> None:
    message = traced(announce(IndividualDeleted(collection="c", individual_id="a", revision=2), "t"))
    with about(message):
        as_json.ours.info("done", seconds=0.5)
        ours = as_json.last
        as_json.library.info("got %d", 3)
    assert list(ours)[:3] == ["timestamp", "level", "event"]
    assert {"worker": "w", "namespace": "n", "event": "done", "level": "info", "seconds": 0.5}.items() <= ours.items()
    for line in (ours, as_json.last):
        assert (line["collection"], line["individual_id"], line["revision"]) == ("c", "a", 2)
        assert len(line["trace_id"]) == 32
    assert as_json.last["event"] == "got 3"


def test_what_is_not_asked_for_is_not_written(as_json: Lines) -> None:
    as_json.ours.debug("each individual")
    as_json.library.debug("each byte")
    assert as_json.text == ""


@pytest.mark.parametrize("where", ["field", "event", "argument", "exception", "nested", "key"])
@pytest.mark.parametrize("what", ["bytes", "base64", "array", "list", "texts", "repr"])
def test_nothing_of_a_photo_or_an_embedding_gets_through(lines: Lines, embedding: Make, what: str, where: str) -> None:
    vector = embedding()
    secret: Any = {
        "bytes": PHOTO,
        "base64": TEXT,
        "array": vector,
        "list": vector.tolist(),
        "texts": str(vector.tolist()),
        "repr": f"value={vector!r}",
    }[what]
    match where:
        case "field":
            lines.ours.info("e", what=secret)
        case "event":
            lines.ours.info(str(secret))
        case "argument":
            lines.library.info("got %s", secret)
        case "exception":
            try:
                raise ValueError(secret)
            except ValueError:
                lines.ours.exception("e")
        case "nested":
            lines.ours.info("e", what={"a": [{"b": secret}]})
        case "key":
            lines.ours.info("e", what={str(secret): 1})
    assert lines.text
    numbers = [f"{number:.4f}"[:6] for number in np.abs(vector[10:100])]
    assert sum(number in lines.text for number in numbers) < 3, lines.text
    for encoded in (TEXT, repr(PHOTO)[2:-1], base64.b64encode(vector.tobytes()).decode()):
        assert not any(encoded[begin : begin + 40] in lines.text for begin in range(0, len(encoded) - 40, 7))
    assert len(lines.text) < 8000


def test_a_traceback_says_where_and_not_with_which_values(lines: Lines) -> None:
    def fail(photo: bytes) -> None:
        password = "hunter2"
        raise RuntimeError(f"{len(photo) + len(password)} bytes are too many")

    try:
        fail(b"a photo")
    except RuntimeError:
        lines.ours.exception("crashed")
    assert "RuntimeError" in lines.text
    assert "14 bytes are too many" in lines.text
    assert Path(__file__).name in lines.text
    assert "hunter2" not in lines.text.replace('password = "hunter2"', "")
    assert "a photo" not in lines.text.replace('fail(b"a photo")', "")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, None),
        (True, True),
        (7, 7),
        (np.int64(7), 7),
        (np.float32(0.5), 0.5),
        ("text", "text"),
        (Path("/a"), "/a"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Colour.RED, "red"),
        (ValueError("why"), "why"),
        (["topic", 1, None], ["topic", 1, None]),
        ({"a": (1, 2)}, {"a": [1, 2]}),
        (b"bytes", "<bytes>"),
        (bytearray(3), "<bytearray>"),
        (np.zeros(2), "<ndarray>"),
        (object(), "<object>"),
        ([0.5] * 9, "<list of 9>"),
        ("word " * 1000, ("word " * 1000)[:LONGEST_TEXT] + f" <{5000 - LONGEST_TEXT} characters more>"),
    ],
)
def test_plain_values_are_said_and_others_named(value: object, said: object) -> None:
    assert redacted(value) == said


@pytest.mark.parametrize(
    "text",
    [
        "FACEMATCH_KAFKA: 127.0.0.1:9092, 127.0.0.1:9093 do not answer",
        "https://photos.example.org/2026/01/31/A-1001.jpg?signature=0123456789abcdef",
        "partitions 0, 1, 2, 3, 4, 5 of facematch.encodings",
        "2026-01-31T09:30:00.123456+00:00: 3 of 4 in 0.5 s",
    ],
)
def test_texts_that_operators_need_stay_as_they_are(text: str) -> None:
    assert redacted_text(text) == text


def test_a_line_that_cannot_be_written_stops_nobody_and_is_not_said_another_way() -> None:
    text = "logs.configure(logs.LogStyle('text', is_worker=True)); import logging, structlog; photo = 'QUJD' * 10\n"
    fail = "logging.getLogger('a').warning('%d', photo); structlog.stdlib.get_logger('b').warning('after')"
    done = subprocess.run([sys.executable, "-c", BEGIN + text + fail], capture_output=True, text=True, check=True)
    assert "a log line of a could not be written" in done.stderr
    assert "after" in done.stderr
    assert "QUJD" not in done.stderr


def test_workers_lines_are_json_where_nobody_looks_and_text_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for is_looked_at, expected in ((True, "text"), (False, "json")):
        monkeypatch.setattr("sys.stderr", SimpleNamespace(isatty=lambda seen=is_looked_at: seen))
        assert logs.LogStyle(is_worker=True).format == expected
        assert logs.LogStyle().format == "text"
        assert logs.LogStyle("text", is_worker=True).format == "text"
        assert logs.LogStyle("json").format == "json"


def run(code: str) -> list[dict[str, Any]]:
    """What a process of its own logs, as a worker; every line of it must be JSON."""
    done = subprocess.run([sys.executable, "-c", BEGIN + code], capture_output=True, text=True, check=False)
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_a_worker_that_crashes_says_so_in_a_line_as_its_threads_and_warnings_do() -> None:
    warned, in_thread, crashed = run(
        "import threading, warnings; warnings.warn('old'); thread = threading.Thread(target=lambda: 1 / 0)\n"
        f"thread.start(); thread.join(); photo = {PHOTO!r}\n"
        "raise ValueError(photo)"
    )
    assert "old" in warned["event"]
    assert in_thread["exception"][0]["exc_type"] == "ZeroDivisionError"
    assert (crashed["level"], crashed["event"], crashed["worker"]) == ("critical", "crashed", "w")
    assert [(one["exc_type"], one["exc_value"]) for one in crashed["exception"]] == [("ValueError", "<bytes>")]


def test_processes_of_a_pool_log_as_the_one_that_started_them() -> None:
    (line,) = run(
        "import logging; from consumers.encoder.pool.worker_process import Program, WorkerProcess\n"
        "if __name__ == '__main__':\n"
        "    log = logging.getLogger('consumers.anything').info\n"
        "    process = WorkerProcess(Program(log, ('in a process of the pool',), list))\n"
        "    process.wait_until_begun(); process.close()"
    )
    assert (line["event"], line["worker"], line["level"]) == ("in a process of the pool", "w", "info")
