"""A record that ends a worker again and again is set aside; all others are answered. On real servers."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from deploy.cli import app
from deploy.local import supervisor
from runtime.servers.attempts import Reader, attempts_of
from schemas.attempts import Position
from schemas.envelope import Source, announce, decode
from schemas.events.base import Detector
from schemas.topics import CERTIFICATES, ENCODINGS, SINK, SKIPPED
from tests.encodings import computed
from tests.integration.planted import plant, uproot
from tests.integration.test_poison import letters, registration
from tests.integration.world import World

Make = Callable[[], NDArray[np.float32]]


@pytest.fixture(autouse=True)
def soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who dies is started again at once: the pauses are another test's."""
    monkeypatch.setattr(supervisor, "_FIRST_PAUSE_S", 0.01)


def facematch(world: World, *arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env=world.env)


def set_aside(world: World) -> dict[str, str]:
    """Whose records became letters because somebody died of them: the individual, by the position."""
    return {
        position: (letter.record.key or b"").decode().partition("/")[2]
        for position, letter in letters(world).items()
        if "set aside" in letter.error
    }


def noted(world: World) -> set[str]:
    """The partitions of which `skipped` has an attempt that was not withdrawn."""
    last = {record.key: record.value for record in world.read(SKIPPED)}
    return {key.decode() for key, value in last.items() if key and value and key.startswith(b"tried/")}


def test_a_record_that_ends_the_sink_is_set_aside_and_a_good_stop_withdraws_the_notes(
    world: World, tmp_path: Path
) -> None:
    plant(world, tmp_path / "planted")
    world.publish_records([registration(who) for who in ("before", "raises-in-sink.", "behind")])
    world.start("sink")
    world.wait(lambda: set(set_aside(world).values()) == {"raises-in-sink."}, "it is set aside", 120)
    world.wait(lambda: world.count("registered") == 2, "all others are written", 60)
    assert 3 < world.restarts()["sink"] < 9, "with all in hand, with its batch, and twice alone"
    world.stop()
    assert noted(world) == set()


@pytest.mark.faults
@pytest.mark.timeout(400)
def test_a_record_that_ends_a_worker_is_set_aside_and_all_others_are_answered(
    world: World, embedding: Make, tmp_path: Path
) -> None:
    plant(world, tmp_path / "planted")
    encoder, sink = ["raises-in-encode.", "exits-in-gpu."], ["raises-in-sink."]
    matcher = ["exits-in-match."]
    world.publish_records([registration(who) for who in ["before", encoder[0], *sink, "between"]])
    world.publish_records([registration(who, Detector.CNN) for who in ["g-before", encoder[1], "g-behind"]])
    world.publish([announce(computed(who, embedding()), "test") for who in ["m-before", *matcher, "m-behind"]])
    world.start("encode-cpu", "encode-gpu", "match", "sink")
    ended = {*encoder, *matcher, *sink}
    world.wait(lambda: set(set_aside(world).values()) >= ended, f"{sorted(ended)} are set aside", 240)
    world.wait(lambda: world.count("rejected") == 4 and world.count("checked") == 2, "all others are answered", 60)
    world.wait(world.settled, "all is committed", 60)
    assert set(set_aside(world).values()) == ended
    assert all(2 < times < 15 for times in world.restarts().values()), world.restarts()
    world.stop()
    assert noted(world) == set()

    world.start("encode-cpu", "encode-gpu", "match", "sink")  # which reads encodings from the beginning
    before = world.restarts()
    world.publish_records([registration("later")])
    world.publish([announce(computed("m-later", embedding()), "test")])
    world.wait(lambda: world.count("rejected", "checked") == 8, "they know what was set aside", 60)
    assert world.restarts() == before
    world.stop()

    position = next(at for at, who in set_aside(world).items() if who == sink[0] and at.startswith("individuals/"))
    uproot(world)
    redriven = facematch(world, "dead-letters", "redrive", position, "--yes")
    assert redriven.exit_code == 0, redriven.output
    world.start("encode-cpu", "sink")
    world.wait(lambda: world.count("rejected") == 6, "what was set aside is answered once it can be read", 60)


def test_compaction_passes_over_a_record_that_ends_it(world: World, embedding: Make, tmp_path: Path) -> None:
    one, two = embedding(), embedding()
    people = {"a": one, "a-again": one, "raises-in-compact.": two, "b": two}
    world.publish([announce(computed(who, vector), "test") for who, vector in people.items()])
    world.start("match", "sink")
    world.wait(lambda: world.count("checked") == 4, "all are compared")
    pairs = set(world.pairs())
    assert len(pairs) == 2
    plant(world, tmp_path / "planted")
    command = [sys.executable, "-m", "deploy.cli", "compact"]
    done = subprocess.run(
        command, env={**os.environ, **world.env}, capture_output=True, text=True, timeout=100, check=False
    )
    uproot(world)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 pairs stay" in done.stdout, "its problem is named"
    assert set(set_aside(world).values()) == {"raises-in-compact."}
    certified = [decode(record, CERTIFICATES).event.people for record in world.read(CERTIFICATES)]
    assert certified == [3], "of four one was passed over"
    assert set(world.pairs()) == pairs, "nothing of the one that was passed over is retracted"


def test_a_record_is_skipped_by_hand_on_a_compacted_topic_too(world: World, embedding: Make) -> None:
    world.publish([announce(computed(who, embedding()), "test") for who in ("a", "b")])
    position = next(
        Position(ENCODINGS.name, record.partition, record.offset)
        for record in world.read(ENCODINGS)
        if record.key == b"c/a"
    )
    done = facematch(world, "skip", str(position), "--note", "hangs the matcher")
    assert done.exit_code == 0, done.output
    assert "matcher, sink pass over it" in " ".join(done.output.split())
    world.start("match", "sink")
    world.wait(lambda: world.count("checked") == 1, "the other is compared")
    assert set_aside(world) == {}
    assert "hangs the matcher" in letters(world)[str(position)].error
    assert world.restarts() == {}


@pytest.mark.parametrize(
    ("position", "why"),
    [
        ("encodings/0", "topic/partition/offset"),
        ("encodings/x/1", "topic/partition/offset"),
        ("nonsense/0/1", "no worker reads a topic nonsense"),
        ("dead-letters/0/0", "no worker reads a topic dead-letters"),
        ("encodings/17/0", "has the partitions 0 to 5"),
        ("encodings/0/0", "is empty"),
    ],
)
def test_what_is_nowhere_is_not_skipped(world: World, position: str, why: str) -> None:
    done = facematch(world, "skip", position)
    assert done.exit_code == 2
    assert why in " ".join(done.output.replace("│", " ").split())
    assert world.read(SKIPPED) == []


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("who", ["exits-in-encode.", "raises-in-gpu.", "raises-in-match.", "exits-in-sink."])
def test_however_it_ends_the_worker(world: World, embedding: Make, tmp_path: Path, who: str) -> None:
    plant(world, tmp_path / "planted")
    if "match" in who:
        world.publish([announce(computed(one, embedding()), "test") for one in ["a", who, "b"]])
    else:
        world.publish_records([registration(one, Detector.CNN if "gpu" in who else None) for one in ["a", who, "b"]])
    world.start("encode-cpu", "encode-gpu", "match", "sink")
    world.wait(lambda: set(set_aside(world).values()) == {who}, f"{who} is set aside", 300)
    world.wait(lambda: world.count("rejected", "checked") >= 2, "all others are answered", 60)
    world.wait(world.settled, "all is committed", 60)


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_a_fault_that_hits_every_record_empties_no_topic(world: World, tmp_path: Path) -> None:
    plant(world, tmp_path / "planted")
    world.publish_records([registration(f"raises-in-sink.{number}") for number in range(200)])
    world.start("sink")
    refused = "records in a row were set aside"
    world.wait(lambda: any(refused in line["event"] for line in world.said()), "it refuses to set more aside", 500)
    world.wait(lambda: world.restarts()["sink"] > 16, "it goes on dying", 200)
    assert len(set_aside(world)) == 3
    world.stop()
    uproot(world)
    world.start("sink")
    world.wait(lambda: world.count("registered") == 197, "the fault is mended: nothing else was lost", 60)


def test_notes_are_kept_by_whoever_has_the_partition_and_a_good_stop_withdraws_them(world: World) -> None:
    reader = Reader(SINK.name, SINK.name, Source.SINK)
    attempts = attempts_of(world.settings, reader)
    attempts.assigned({("individuals", 2): 7})
    assert noted(world) == set(), "an idle partition notes nothing"
    world.publish_records([registration("a")])
    (record,) = [one for one in world.read(SINK.reads[0]) if one.value]
    attempts.assigned({(record.topic, record.partition): record.offset})
    attempts.take([record])
    assert noted(world) == {f"tried/sink/individuals/{record.partition}"}
    another = attempts_of(world.settings, reader)
    another.assigned({(record.topic, record.partition): record.offset})
    assert another.is_careful, "the one before ended without a word"
    attempts.close()
    assert noted(world) == set()
