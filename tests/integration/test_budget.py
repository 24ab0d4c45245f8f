"""A collection grows past the steps of its review budget, on real servers, and processes are killed on the way."""

import signal

from redis import Redis

from schemas.encoders.known import shipped
from schemas.envelope import decode
from schemas.events.encodings import EncodingComputed
from schemas.events.pairs import DuplicateFound, RetractionReason
from schemas.thresholds import Thresholds
from schemas.topics import DEAD_LETTERS, DUPLICATES, ENCODINGS, partition_of
from streams.gallery.gallery import Gallery
from streams.matching.match import Rules, match
from tests import oracle
from tests.encodings import crowd
from tests.integration.conftest import MakeWorld
from tests.integration.faults import publish
from tests.integration.judge import pairs_in_postgres, pairs_on_the_topic
from tests.integration.test_compaction import certificates, compacted, lease_key, run
from tests.integration.world import World
from tests.unit.test_match import computed, log_of

ENCODER = shipped("face_recognition").id
PARTITION = partition_of("c", ENCODINGS.partitions)
KILLED = """
import os, signal, sys
from itertools import islice
from schemas.settings import Settings
from schemas.shard import Shard
from streams.compaction.bootstrap import open_compactor
from streams.compaction.correction import Correction

publish = Correction._publish

def some(self, messages):
    publish(self, islice(messages, 3))
    os.kill(os.getpid(), signal.SIGKILL)

Correction._publish = some
with open_compactor(Settings(), Shard(), int(sys.argv[1]), 1, lambda *_: None) as compactor:
    list(compactor.run())
"""


def newcomers(count: int) -> list[EncodingComputed]:
    """That many people, each once, by an encoder with operating points."""
    first = {event.key: event for event in reversed(crowd(2 * count, seed=1)) if isinstance(event, EncodingComputed)}
    return [event.model_copy(update={"encoder": ENCODER, "revision": 1}) for event in reversed(first.values())][:count]


def stated(world: World) -> set[tuple[str, float, float]]:
    events = [event for event in world.events(DUPLICATES) if isinstance(event, DuplicateFound)]
    return {(event.key, round(event.distance, 9), event.threshold) for event in events}


def test_steps_that_a_growing_collection_takes_survive_kills_and_compaction_puts_right_what_they_take_away(
    make_world: MakeWorld,
) -> None:
    """The matcher compares each newcomer by the step in force, killed or not; the compaction ends at the last step."""
    world = make_world(delta_limit=200, thresholds={}, candidates_per_newcomer=0.01)
    thresholds, everyone = Thresholds(world.settings), newcomers(900)
    steps = sorted({thresholds.of("c", ENCODER, living) or 0 for living in range(901)}, reverse=True)
    assert len(steps) == 5
    world.start("match", "sink")
    publish(world, everyone[:450])
    world.crash("match")
    publish(world, everyone[450:])
    world.wait(lambda: world.count("checked") == 900 and world.settled(), "all are checked")

    consequences = match(Gallery(), log_of([*everyone]), Rules(thresholds.of, world.settings.findings_limit))
    alone = [event for record in consequences.publish if isinstance(event := decode(record).event, DuplicateFound)]
    assert stated(world) == {(event.key, round(event.distance, 9), event.threshold) for event in alone}
    assert {event.threshold for event in alone} == set(steps)

    true = oracle.pairs(everyone, steps[-1])
    beyond = len(pairs_in_postgres(world)) - len(true)
    assert beyond >= 5, "what the steps take away is there until the compaction"
    killed = run(world, "-c", KILLED, str(PARTITION))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    world.wait(world.settled, "what it had retracted is written")
    assert len(true) < len(pairs_in_postgres(world)) < len(true) + beyond, "it was killed in the middle"
    Redis.from_url(world.settings.redis).delete(lease_key(world))  # as it is after half a minute
    compacted(world, "--collection", "c")
    world.wait(lambda: pairs_in_postgres(world).keys() == true.keys(), "the pairs are those of the last step")
    assert pairs_on_the_topic(world).keys() == true.keys()
    assert certificates(world)[-1].threshold == steps[-1]
    reasons = [event.reason for event in world.events(DUPLICATES) if hasattr(event, "reason")]
    assert set(reasons) == {RetractionReason.THRESHOLD}


def test_whom_no_threshold_was_for_is_compared_once_there_is_one(make_world: MakeWorld) -> None:
    world = make_world(thresholds={})
    world.start("match", "sink")
    publish(world, [computed("a", 1, 0), computed("b", 1, 0)])
    world.wait(lambda: len(world.read(DEAD_LETTERS)) == 2, "each is a dead letter")
    error = b" ".join(value or b"" for _, value in world.read(DEAD_LETTERS)[0].headers).decode()
    assert "FACEMATCH_THRESHOLDS='{\"e\": …}'; start the matchers again, and the next compaction" in error
    passed_over = run(world, "-m", "deploy.cli", "compact", "--collection", "c")
    assert "encoder e has no threshold" in passed_over.stderr
    world.wait(world.settled, "all is written")
    assert (world.count("checked"), certificates(world), world.pairs()) == (0, [], set())
    world.workers["match"].stop()
    world.env["FACEMATCH_THRESHOLDS"] = '{"e": 0.3}'
    world.start("match")
    compacted(world, "--collection", "c")
    world.wait(lambda: world.count("checked") == 2, "both are checked")
    assert world.pairs() == {("a", "b")}
