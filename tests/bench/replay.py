"""`make bench-replay`: how fast events are sent again where nothing limits it, and what it does to live registrations.

Prints Markdown tables. Beside the first nobody is at work. Kafka, workers and the replay share the machine.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from deploy.demo.photos import fetch_demo_photos
from schemas.envelope import Record, announce, encode
from schemas.events.base import Event
from schemas.events.registrations import IndividualUpdated, Photo
from schemas.topics import ENCODINGS, INDIVIDUALS, Topic
from tests.bench.machine import begin_benchmark, print_table, report, sized
from tests.encodings import crowd
from tests.integration.faces import make_faces
from tests.integration.replays import ONE_AT_WORK, begin, sent_by
from tests.integration.world import World, running_servers

EVENTS, REPEATS = sized((100_000, 3), (1000, 1))
CROWD, ALONE = sized((1000, 20), (60, 2))
NewWorld = Callable[..., World]


def registrations() -> Iterator[Record]:
    """Registrations as a registration system sends them, each of somebody else."""
    for number in range(EVENTS):
        event = IndividualUpdated(
            collection="c",
            individual_id=f"A-{number}",
            revision=1,
            photo=Photo(uri=f"https://photos.example.org/A-{number}.jpg"),
            attributes={"household": f"H-{number % 4000}", "site": f"site {number % 7}"},
        )
        yield encode(announce(event, "registration/camp-a"))


def encodings() -> Iterator[Record]:
    """Encodings in six collections; of some people several, of whom the latest counts."""
    for event in crowd(EVENTS, seed=1, collections=("c", "d", "f", "g", "b", "i")):
        yield encode(announce(event, "facematch/encoder"))


class Figures(NamedTuple):
    """How many were sent, how many a second by the times at which Kafka had them, and how long the command took."""

    events: int
    per_s: float
    command_s: float


def measure(world: World, topic: Topic[Event]) -> Figures:
    """Replay all that a topic has."""
    command = [sys.executable, "-m", "deploy.cli", "replay", "--from", topic.name, "--yes", "--at-once"]
    began = time.monotonic()
    subprocess.run(command, env={**os.environ, **world.env}, check=True, stdout=sys.stderr)
    seconds = time.monotonic() - began
    times = sorted(record.timestamp for record in sent_by(world, topic))
    skipped = len(times) // 20  # until it is warm
    return Figures(len(times), (len(times) - skipped) / ((times[-1] - times[skipped]) / 1000), seconds)


def speed(new_world: NewWorld) -> None:
    """Each repetition in topics of its own."""
    rows: list[tuple[str, ...]] = []
    for topic, make in ((INDIVIDUALS, registrations), (ENCODINGS, encodings)):
        records = list(make())
        found = []
        for _ in range(REPEATS):
            world = new_world()
            world.publish_records(records)
            found.append(measure(world, topic))
        rates = [one.per_s for one in found]
        figures = [f"{rate:.0f}" for rate in (*rates, statistics.median(rates))]
        command = statistics.median(one.command_s for one in found)
        rows.append((topic.name, str(found[0].events), *figures, f"{command:.1f}"))
    runs = (f"{number}, events/s" for number in range(1, REPEATS + 1))
    print_table(("from", "events", *runs, "median", "whole command, median, s"), rows)


def latency(new_world: NewWorld, folder: Path) -> None:
    """Live registrations, one after the other, with nothing beside them, beside a replay, and beside one at once."""
    world = new_world(**ONE_AT_WORK)
    photos = fetch_demo_photos(Path(".facematch/photos"))
    live = begin(world, make_faces(photos, folder / "photos", min(100, CROWD)), CROWD)
    count = iter(range(ALONE))
    waits = {"nothing": live.waits(lambda: next(count, None) is not None)}
    waits["a replay"] = live.beside_a_replay()
    waits["a replay --at-once"] = live.beside_a_replay("--at-once")
    world.stop()
    rows = [
        (what, str(len(found)), f"{statistics.median(found):.2f}", f"{max(found):.2f}") for what, found in waits.items()
    ]
    print_table((f"beside, of {CROWD}", "live registrations", "p50, s", "longest, s"), rows)


def run() -> None:
    """Both parts."""
    begin_benchmark()
    with running_servers(report) as (stack, lines, folder):

        def new_world(**settings: Any) -> World:
            return World(stack, lines, folder / "data", **settings)

        speed(new_world)
        latency(new_world, folder)


if __name__ == "__main__":
    run()
