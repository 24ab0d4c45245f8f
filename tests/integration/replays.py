"""What the tests of replays share: the command, events that nobody has to process, and live registrations beside it."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from deploy.cli import app
from producers.replay.sending import POSITION
from runtime.servers.publisher import Publisher
from schemas.envelope import REPLAY_ID, Message, StoredRecord, announce, encode
from schemas.events.base import Event
from schemas.events.registrations import IndividualCreated, Photo
from schemas.topics import DUPLICATES, INDIVIDUALS, Topic
from tests.integration.world import World

Run = Callable[..., Result]


def runner_of(world: World, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `facematch replay` in this process."""
    for name, value in (world.env | {"COLUMNS": "200"}).items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> Result:
        with _signals_kept():
            return CliRunner().invoke(app, ["replay", *arguments])

    return run


@contextmanager
def _signals_kept() -> Iterator[None]:
    """The command is told by signals to stop; this process is not."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def registered(who: str, collection: str = "c", photo: str = "file:///nowhere.jpg") -> Message[Event]:
    """A registration, of a photo that is nowhere unless one is given."""
    event = IndividualCreated(collection=collection, individual_id=who, revision=1, photo=Photo(uri=photo))
    return announce(event, "test")


def publish_crowd(world: World, count: int) -> None:
    """Registrations, in all partitions."""
    records = [encode(registered(f"p{number}")) for number in range(count)]
    world.publish_records([replace(record, partition=number % 6) for number, record in enumerate(records)])


def sent_by(world: World, topic: Topic[Event], replay_id: str | None = None) -> list[StoredRecord]:
    """What one replay sent, or any."""
    replays = [(record, dict(record.headers).get(REPLAY_ID)) for record in world.read(topic)]
    return [record for record, by in replays if by is not None and replay_id in (None, by.decode())]


def positions(records: list[StoredRecord]) -> Counter[str]:
    """Where they stood before, and how often each was sent."""
    return Counter((dict(record.headers)[POSITION] or b"").decode() for record in records)


def start(world: World, *arguments: str) -> "subprocess.Popen[bytes]":
    """Start `facematch replay` as a process of its own."""
    command = [sys.executable, "-m", "deploy.cli", "replay", *arguments]
    return subprocess.Popen(command, env={**os.environ, **world.env}, stdout=subprocess.DEVNULL)


# Slow enough that a replay makes it wait, and of faces from few photos not every two are a pair.
ONE_AT_WORK: dict[str, Any] = {"routing": "cpu", "encoder_processes": 1, "threshold": 0.05}


def begin(world: World, files: list[Path], people: int) -> "Live":
    """Start workers, have them encode a crowd, and return who registers others beside its replays."""
    world.start("encode-cpu", "match", "sink")
    world.submit([(f"p{number}", files[number % len(files)].as_uri()) for number in range(people)])
    world.wait(lambda: world.count("checked", "rejected") == people, "an answer to each", limit_s=300)
    world.wait(world.settled, "nobody is behind")
    states = world.states()
    live = Live(world, [file for number, file in enumerate(files) if states[f"p{number}"][0] == "checked"])
    live.waits(lambda: False)  # one, to be warm
    return live


class Live:
    """Registers people one after the other, in a collection of their own."""

    def __init__(self, world: World, files: list[Path]) -> None:
        self._world, self._files = world, files
        self._publisher = Publisher(world.settings, "test")  # one: a new one begins by asking for an id, half a second
        self._count = 0

    def waits(self, go_on: Callable[[], bool]) -> list[float]:
        """How long each took from the topic `individuals` to the topic `duplicates`, in seconds by Kafka's clock."""
        names: list[str] = []
        while go_on() or not names:
            name = f"live-{self._count}"
            photo = self._files[self._count % len(self._files)].as_uri()
            self._publisher.publish_all([encode(registered(name, collection="live", photo=photo))])
            self._world.wait(partial(self._is_checked, name), f"{name} is checked", limit_s=120)
            self._count += 1
            names.append(name)
        keys = [f"live/{name}".encode() for name in names]
        begun, ended = (
            {record.key: record.timestamp for record in reversed(self._world.read(topic)) if record.key in keys}
            for topic in (INDIVIDUALS, DUPLICATES)
        )
        return [(ended[key] - begun[key]) / 1000 for key in keys]

    def beside_a_replay(self, *how: str) -> list[float]:
        """How long they take while the crowd is replayed."""
        world = self._world
        before = sum(world.ends(INDIVIDUALS).values())
        replay = start(world, "--yes", "--collection", "c", *how)
        world.wait(lambda: sum(world.ends(INDIVIDUALS).values()) > before + 20, "it has begun")
        waits = self.waits(lambda: replay.poll() is None)
        assert replay.wait() == 0
        world.wait(world.settled, "nobody is behind", limit_s=300)
        return waits

    def _is_checked(self, name: str) -> bool:
        return self._world.states().get(name, ("", None))[0] == "checked"
