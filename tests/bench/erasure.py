"""`make bench-erasure`: how long `facematch erase` takes, of one person and of many in a file. Prints a Markdown table.

Each person of the gallery has an embedding and a check in Kafka. All servers and workers share the machine.
"""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from schemas.envelope import announce, encode
from schemas.topics import ENCODINGS
from tests.bench.machine import begin_benchmark, print_table, report, sized
from tests.encodings import computed
from tests.integration.world import World, running_servers

PEOPLE, MANY = sized((50_000, 500), (500, 5))


def fill(world: World) -> None:
    """A gallery of people, compared and written."""
    chance = np.random.default_rng(1)
    vectors = chance.normal(size=(PEOPLE, 128)).astype(np.float32)
    vectors *= 0.6 / np.linalg.norm(vectors, axis=1, keepdims=True)
    world.publish_records(
        [encode(announce(computed(f"A-{number:06d}", vector), "bench")) for number, vector in enumerate(vectors)]
    )
    world.start("encode-cpu", "match", "sink")
    world.wait(lambda: sum(world.ends(ENCODINGS).values()) == PEOPLE and world.settled(), "all is written", 600)


def seconds(world: World, *arguments: str) -> tuple[str, str]:
    """How long `facematch erase` takes, and how much of it is its own processor time."""
    command = [sys.executable, "-m", "deploy.cli", "erase", *arguments]
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=os.environ | world.env, check=True, stdout=subprocess.DEVNULL)
    taken, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return f"{taken:.1f}", f"{after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime:.1f}"


def run() -> None:
    """One person, then many."""
    begin_benchmark()
    with running_servers(report) as (stack, lines, folder):
        world = World(stack, lines, Path(folder) / "data")
        fill(world)
        one = [seconds(world, f"A-{number:06d}", "--collection", "c") for number in (1, 2, 3)]
        rows = [(str(number), "1", *taken) for number, taken in enumerate(one, 1)]
        file = Path(folder) / "people"
        file.write_text("".join(f"c/A-{number:06d}\n" for number in range(100, 100 + MANY)))
        rows.append(("in a file", str(MANY), *seconds(world, "--file", str(file))))
        world.stop()
    print_table((f"{PEOPLE:,} people", "erased", "s", "of the processor, s"), rows)


if __name__ == "__main__":
    run()
