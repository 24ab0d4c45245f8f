"""`facematch compact` on real servers: matchers take up what it builds while they match, and nothing is lost."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from redis import Redis
from sqlalchemy import select
from typer.testing import CliRunner

from consumers.views import pairs as queries
from deploy.cli import app
from deploy.compaction.certificates import latest_certificates, problem_of
from deploy.status.workers import galleries
from runtime.servers.kafka import consumer_config
from runtime.servers.redis import connect, key, value_of
from schemas.envelope import announce, full_name
from schemas.erased import ErasureKey
from schemas.events.base import Member
from schemas.events.certificates import CompactionCertified, PairCounts
from schemas.events.encodings import EncodingComputed, EncodingErased
from schemas.events.pairs import DuplicateFound, DuplicateRetracted, RetractionReason
from schemas.shard import Shard
from schemas.tables import duplicates, retractions
from schemas.topics import CERTIFICATES, DUPLICATES, ENCODINGS, MATCHER, partition_of
from streams.checkpoint import lease as leases
from streams.checkpoint.handover import Inbox, LostChunksError
from streams.checkpoint.lease import Lease, LeaseLostError, lease_of
from streams.checkpoint.retired import keys_of_counts, remove_retired
from streams.compaction.bootstrap import open_compactor
from streams.compaction.compactor import CompactionPlan
from streams.gallery import build
from streams.gallery.build import OnProgress
from streams.matcher.vitals import ScopeVitals, read_vitals, write_vitals
from tests import oracle
from tests.conftest import Make
from tests.encodings import crowd, thresholds_of_tests, twins
from tests.integration.conftest import MakeWorld
from tests.integration.faults import publish
from tests.integration.judge import assert_as_the_oracle
from tests.integration.test_checkpoints import PARTITION, chunk_keys, manifest, restart
from tests.integration.test_matcher import checked, expected_pairs, found, messages, people
from tests.integration.test_shards import SHARDS, start_shard
from tests.integration.world import World
from tests.oracle import Pair

LIMIT = 500
WHAT_IF = ("what-if", "--whole")
AHEAD = datetime.now(UTC) + timedelta(days=1000)
KILLED = """
import os, signal, sys
from schemas.settings import Settings
from schemas.shard import Shard
from streams.compaction.bootstrap import open_compactor

def progress(what, done, total, detail=""):
    if what.startswith(sys.argv[1]) and done == total * int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

with open_compactor(Settings(), Shard(), int(sys.argv[3]), 1, progress) as compactor:
    list(compactor.run())
"""


def run(world: World, *command: str) -> "subprocess.CompletedProcess[str]":
    env = os.environ | world.stack.addresses | world.env
    return subprocess.run([sys.executable, *command], env=env, capture_output=True, text=True, timeout=120, check=False)


def compact(world: World, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The command, as operations types it."""
    return run(world, "-m", "deploy.cli", "compact", *arguments)


def compacted(world: World, *arguments: str, command: tuple[str, ...] = ("compact",)) -> str:
    done = run(world, "-m", "deploy.cli", *command, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_here(
    world: World, progress: OnProgress = lambda *_: None, collection: str | None = None
) -> Iterator[CompactionCertified]:
    """Compact in this process."""
    with open_compactor(world.settings, Shard(), PARTITION, 1, progress) as compactor:
        yield from compactor.run(CompactionPlan(collection))


def inbox(world: World, shard: Shard = Shard()) -> Inbox:
    return Inbox(world.settings, connect(world.settings), shard, PARTITION)


def sides(pair: Pair) -> dict[str, Any]:
    a, b = (Member(individual_id=who, revision=revision) for _, who, revision in pair.sides)
    return {"collection": pair.collection, "encoder": pair.encoder, "a": a, "b": b}


def current(world: World) -> list[queries.CurrentPair]:
    with world.connect() as connection:
        return queries.current_pairs(connection)


def certificates(world: World) -> list[CompactionCertified]:
    return latest_certificates(world.settings, None, 10)


def commit(world: World, offset: int) -> None:
    """Have the matcher's group stand there."""
    group = Consumer(consumer_config(world.settings, MATCHER.name))
    group.commit(offsets=[TopicPartition(full_name(ENCODINGS.name, world.name), PARTITION, offset)], asynchronous=False)
    group.close()


def lease_key(world: World) -> str:
    return key(world.settings, "lease", Shard(), PARTITION)


def scope(world: World) -> ScopeVitals:
    """What the matcher says of the collection."""
    (gallery,) = galleries(world.settings)
    return gallery.vitals


def is_taken_over(world: World) -> bool:
    """Whether what compaction left is in the matcher's checkpoint."""
    kept = manifest(world)
    return kept is not None and any(one.compacted_at for one in kept.scopes) and not inbox(world).entries()


def chunks(world: World) -> set[str]:
    return {name.partition(":chunk:")[2] for name in chunk_keys(world)}


def named(world: World) -> set[str]:
    """The chunks that the checkpoint or the inbox names."""
    kept = manifest(world)
    left = {chunk for one in inbox(world).entries().values() for chunk in one.segment.blob.chunks()}
    return left | (set() if kept is None else set(kept.chunks()))


def matched(make_world: MakeWorld, people: int) -> World:
    """A world with a matcher that has sealed some."""
    world = make_world(delta_limit=LIMIT)
    world.start("match", "sink")
    publish(world, crowd(people, seed=1))
    world.wait(lambda: len(checked(world)) > people * 0.8 and world.settled(), "all are matched")
    world.wait(lambda: len(galleries(world.settings)) == 1 and scope(world).segments != (), "some are sealed")
    return world


def test_a_matcher_takes_up_one_segment_of_all_while_it_matches(make_world: MakeWorld) -> None:
    world = matched(make_world, 1500)
    living = len(oracle.living(crowd(1500, seed=1)))
    assert "1.0000" in compacted(world)
    publish(world, crowd(400, seed=2, prefix="q"))
    world.wait(lambda: is_taken_over(world), "the matcher's checkpoint has what was compacted")
    assert_as_the_oracle(world)
    world.wait(
        lambda: scope(world).compacted_at is not None and scope(world).people > living, "the matcher speaks of all that"
    )
    after = scope(world)
    assert len(after.segments) <= 2, "what came since may be sealed by now"
    assert after.segments[0].rows == living
    assert after.people <= sum(one.living for one in after.segments) + after.delta  # some who came since are erased
    assert chunks(world) == named(world)
    assert all(Redis.from_url(world.settings.redis).ttl(name) == -1 for name in chunk_keys(world))
    restart(world)
    publish(world, crowd(400, seed=3, prefix="r"))
    assert_as_the_oracle(world)
    assert world.restarts() == {}
    world.wait(world.settled, "all is matched")
    compacted(world)
    assert_as_the_oracle(world)


def test_what_went_wrong_with_pairs_is_put_right_and_certified(make_world: MakeWorld) -> None:
    """Pairs are retracted that hold, by somebody whose clock is ahead; others are found that do not."""
    world = matched(make_world, 1200)
    assert_as_the_oracle(world)
    living = oracle.living(crowd(1200, seed=1)).values()
    true = list(oracle.pairs(living, world.threshold))
    beyond = list(oracle.pairs(living, 0.7).keys() - true)
    wrong = [*beyond[:15], *(one._replace(revision_a=one.revision_a - 1) for one in beyond[15:30])]
    world.publish(
        [announce(DuplicateRetracted(**sides(one), reason=RetractionReason.UPDATED), "t", AHEAD) for one in true[:20]]
    )
    world.publish([announce(DuplicateFound(**sides(one), distance=0.4, threshold=0.45), "t") for one in wrong])
    world.wait(world.settled, "all of that is in the tables")
    with world.connect() as connection:
        at_once = connection.execute(select(retractions).where(retractions.c.retracted_at < AHEAD)).all()
    before = {pair.pair_id for pair in current(world)}
    assert "nothing is changed" in compacted(world, command=WHAT_IF)
    assert {pair.pair_id for pair in current(world)} == before
    compacted(world)
    assert_as_the_oracle(world, untrue=len(wrong))
    (certificate,) = certificates(world)
    assert certificate.pairs.retracted == len(wrong)
    assert (certificate.people, certificate.threshold, certificate.in_service) == (len(living), 0.45, True)
    assert (certificate.pairs.found, certificate.pairs.kept) == (20, len(true) - 20)
    assert certificate.recall is not None
    assert certificate.recall.low < certificate.recall.recall == 1
    assert {"reading", "measuring", "building", "comparing", "publishing", "storing"} <= certificate.seconds.keys()
    with world.connect() as connection:
        kept = connection.execute(select(retractions.c.reason, retractions.c.distance)).all()
        last = connection.execute(select(duplicates.c.distance).where(duplicates.c.retracted.is_not(None))).all()
    assert {reason for reason, _ in kept} == {"updated", "threshold"}
    assert len(kept) == len(at_once) + len(wrong) + 20
    assert len(last) >= len(wrong)
    assert all(distance is not None for (distance,) in last)
    compacted(world)  # nothing is left to be done
    world.wait(lambda: len(certificates(world)) == 2, "the second certificate")
    assert certificates(world)[1].pairs == PairCounts(kept=len(true), found=0, retracted=0)


@pytest.mark.faults
def test_newcomers_whom_the_matcher_skipped_are_compared(make_world: MakeWorld) -> None:
    """Its group has committed them, and they were not matched: their pairs are missing, and that they were checked."""
    world = make_world()
    publish(world, crowd(300, seed=1))
    commit(world, 200)
    world.start("match", "sink")
    world.wait(world.settled, "the rest is matched")
    compacted(world)
    assert_as_the_oracle(world)
    (certificate,) = certificates(world)
    assert certificate.checked > 100
    assert certificate.pairs.found > 10
    compacted(world)
    world.wait(lambda: len(certificates(world)) == 2, "the second certificate")
    assert (certificates(world)[1].checked, certificates(world)[1].pairs.found) == (0, 0)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("phase", "end"),
    [("reading", "1"), ("building", "0"), ("comparing", "1"), ("publishing", "1"), ("storing", "0"), ("storing", "1")],
)
def test_one_that_is_killed_leaves_all_as_it_was_and_the_next_removes_its_litter(
    make_world: MakeWorld, phase: str, end: str
) -> None:
    world = matched(make_world, 1500)
    world.workers["match"].stop()
    before = manifest(world)
    killed = run(world, "-c", KILLED, phase, end, str(PARTITION))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (manifest(world), inbox(world).entries()) == (before, {})
    redis = Redis.from_url(world.settings.redis)
    litter = chunks(world) - named(world)
    assert bool(litter) == ((phase, end) == ("storing", "1"))
    assert all(0 < redis.ttl(name) <= 3600 for name in chunk_keys(world) if name.partition(":chunk:")[2] in litter)
    if phase != "reading":
        redis.delete(lease_key(world))  # as it is after half a minute: once it is waited for
    (result,) = run_here(world, collection="c")
    assert result.in_service
    assert chunks(world) == named(world)
    assert all(redis.ttl(name) == -1 for name in chunk_keys(world))  # it waits for the matcher, however long
    world.workers["match"].start()
    world.wait(lambda: is_taken_over(world), "the matcher takes it up when it is back")
    publish(world, crowd(200, seed=2, prefix="q"))
    assert_as_the_oracle(world)
    assert chunks(world) == named(world)


@pytest.mark.faults
def test_what_of_the_inbox_cannot_be_used_is_said_and_removed(make_world: MakeWorld) -> None:
    """A chunk that is missing, a value that nobody can read: the matcher goes on with what it has."""
    world = matched(make_world, 1500)
    world.workers["match"].stop()
    list(run_here(world))
    redis = Redis.from_url(world.settings.redis)
    left = {chunk for one in inbox(world).entries().values() for chunk in one.segment.blob.chunks()}
    redis.delete(next(name for name in chunk_keys(world) if name.partition(":chunk:")[2] in left))
    redis.hset(inbox(world).key, "d/test", "garbage")
    begin = len(world.lines)
    world.workers["match"].start()
    world.wait(lambda: redis.hlen(inbox(world).key) == 0, "what cannot be used is removed")
    unused = {one["of"]: one["because"] for one in world.said(begin) if one["event"].startswith("a compacted segment")}
    assert "d/test" in unused
    assert any("is missing" in because for because in unused.values())
    publish(world, crowd(200, seed=2, prefix="q"))
    assert_as_the_oracle(world)
    assert world.restarts() == {}


@pytest.mark.faults
def test_all_comes_right_while_everyone_arrives_and_compactions_die(make_world: MakeWorld) -> None:
    """Arrivals, updates and erasures at full speed; each compaction is killed a little later than the one before."""
    world = matched(make_world, 1500)
    later = crowd(30_000, seed=2, prefix="q")

    def arrive() -> None:
        for begin in range(0, len(later), 500):
            publish(world, later[begin : begin + 500])

    arriving = threading.Thread(target=arrive)
    arriving.start()
    redis, kills, ends = Redis.from_url(world.settings.redis), 0, 0
    while arriving.is_alive():
        env = os.environ | world.stack.addresses | world.env
        with subprocess.Popen([sys.executable, "-m", "deploy.cli", "compact"], env=env) as one:
            try:
                one.wait(2 + 0.5 * kills)
                ends += 1
            except subprocess.TimeoutExpired:
                one.kill()
                kills += 1
        redis.delete(lease_key(world))  # as it is after half a minute
    arriving.join()
    assert kills > 2
    world.wait(world.settled, "all is matched", 120)
    compacted(world)
    assert_as_the_oracle(world)
    world.wait(lambda: is_taken_over(world), "the last is taken up")
    compacted(world)
    world.wait(lambda: is_taken_over(world) and chunks(world) == named(world), "no chunk is left over")
    assert world.restarts() == {}


def test_one_that_is_stopped_gives_its_lease_back(make_world: MakeWorld) -> None:
    """Or else the next would have to wait for it to run out."""
    world = make_world()
    publish(world, crowd(3000, seed=1))
    env = os.environ | world.stack.addresses | world.env
    redis = Redis.from_url(world.settings.redis)
    with subprocess.Popen([sys.executable, "-m", "deploy.cli", "compact"], env=env) as one:
        world.wait(lambda: redis.get(lease_key(world)) is not None, "it has the lease")
        one.terminate()
    assert one.returncode == 128 + signal.SIGTERM
    assert redis.get(lease_key(world)) is None
    assert inbox(world).entries() == {}


def test_two_at_once_are_impossible(make_world: MakeWorld) -> None:
    world = make_world()
    publish(world, crowd(100, seed=1))
    with lease_of(connect(world.settings), lease_key(world)):
        refused = compact(world)
        assert refused.returncode == 1
        assert f"a compaction is under way: {os.uname().nodename}/{os.getpid()}" in refused.stdout
        assert inbox(world).entries() == {}
    compacted(world)
    assert len(inbox(world).entries()) == 1


def test_a_lease_is_kept_for_as_long_as_it_takes(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_KEPT_S", 1.0)
    monkeypatch.setattr(leases, "_RENEWED_EVERY_S", 0.05)
    monkeypatch.setattr(leases, "SURE_FOR_S", 0.2)
    world = make_world()
    redis, name = connect(world.settings), lease_key(world)
    begun = time.monotonic()
    with lease_of(redis, name) as lease:
        world.wait(lambda: time.monotonic() - begun > 2, "twice the time for which it is kept without a sign of life")
        lease.check()
        assert redis.get(name) == lease.token.encode()
        redis.delete(name)
        world.wait(lambda: lease._renewed == -math.inf, "it finds out that it is lost")
        with pytest.raises(LeaseLostError, match="Redis lost the lease"):
            lease.check()
    redis.set(name, "host/1/dead", px=1500)
    with lease_of(redis, name) as lease:  # once it has run out, of a process that died
        assert redis.get(name) == lease.token.encode()
    assert redis.get(name) is None


def test_one_that_was_frozen_past_its_lease_changes_nothing(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It wakes up after another took over and finished, and does not know."""
    world = make_world()
    publish(world, crowd(100, seed=1))
    finished: list[object] = []

    def freeze(what: str, done: int, total: int, detail: str = "") -> None:
        if what == "storing" and done == total and not finished:
            Redis.from_url(world.settings.redis).delete(lease_key(world))  # it ran out
            publish(world, crowd(50, seed=2, prefix="q"))
            finished.extend(run_here(world))
            finished.append(inbox(world).entries())

    monkeypatch.setattr(Lease, "check", lambda _: None)  # that it was frozen it has not noticed
    with pytest.raises(LeaseLostError):
        list(run_here(world, freeze))
    assert inbox(world).entries() == finished[1]
    assert [one.offset for one in inbox(world).entries().values()] == [150]
    list(run_here(world))
    assert chunks(world) == named(world)


def test_one_that_stood_still_publishes_and_stores_nothing(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    publish(world, crowd(100, seed=1))
    commit(world, 100)  # all pairs are missing: there is much to say
    ends = [world.ends(topic) for topic in (DUPLICATES, CERTIFICATES)]

    def stand_still(what: str, done: int, total: int, detail: str = "") -> None:
        if what == "publishing":
            monkeypatch.setattr(leases, "_KEPT_S", -1.0)

    monkeypatch.setattr(leases, "_RENEWED_EVERY_S", 100)
    with pytest.raises(LeaseLostError, match="not renewed"):
        list(run_here(world, stand_still))
    assert chunks(world) == set()
    assert [world.ends(topic) for topic in (DUPLICATES, CERTIFICATES)] == ends


def test_pairs_of_a_collection_that_kafka_forgot_are_retracted_once_they_are_known_as_erased(
    make_world: MakeWorld,
) -> None:
    """Everyone was erased, and the tombstones are gone; of whom nobody erased, it says nothing but that."""
    world = make_world()
    pair = {"a": Member(individual_id="a", revision=1), "b": Member(individual_id="b", revision=1)}
    world.publish([announce(DuplicateFound(collection="c", encoder="e", **pair, distance=0.2, threshold=0.4), "t")])
    world.start("sink")
    world.wait(lambda: world.pairs() == {("a", "b")}, "the pair is there")
    failed = compact(world, "--collection", "c")
    assert failed.returncode == 1, failed.stderr
    assert "1 pairs stay though topic encodings has no record of one of the two" in failed.stdout
    assert not any(isinstance(event, DuplicateRetracted) for event in world.events(DUPLICATES))
    erasure = ErasureKey(world.settings.erasure_key).erasure_of("c", "a", 1)
    world.publish([announce(erasure, "t")])
    assert "0: nobody is living in it" in compacted(world, "--collection", "c")
    (one,) = (event for event in world.events(DUPLICATES) if isinstance(event, DuplicateRetracted))
    assert one.reason is RetractionReason.ERASED
    assert "there is nothing to compact" in compacted(world)


@pytest.mark.faults
@pytest.mark.parametrize("lease_survives", [False, True])
def test_a_redis_that_is_emptied_in_the_middle_ends_it(make_world: MakeWorld, lease_survives: bool) -> None:
    world = matched(make_world, 1500)

    def empty(what: str, done: int, total: int, detail: str = "") -> None:
        if what == "storing" and done == total:
            redis = Redis.from_url(world.settings.redis)
            kept = redis.get(lease_key(world)) if lease_survives else None
            redis.delete(*redis.keys(f"{world.name}:*"))
            if kept is not None:
                redis.set(lease_key(world), kept)

    with pytest.raises(LostChunksError if lease_survives else LeaseLostError):
        list(run_here(world, empty))
    assert inbox(world).entries() == {}
    compacted(world)
    publish(world, crowd(700, seed=2, prefix="q"))
    world.wait(lambda: is_taken_over(world), "what the next made is taken up")
    assert_as_the_oracle(world)
    assert chunks(world) == named(world)


def test_an_index_below_the_floor_is_not_put_into_service(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    publish(world, crowd(400, seed=1))
    monkeypatch.setattr(build, "DENSITIES", (build.Density(2, 4, 8),))
    monkeypatch.setattr(build, "_EFS", (8,))
    (result,) = run_here(world)
    assert not result.in_service
    assert "less than the floor of 0.999; it is not put into service" in str(problem_of(result))
    assert result.pairs == PairCounts(kept=0, found=0, retracted=0)  # no matcher has been at work yet
    assert (inbox(world).entries(), chunks(world)) == ({}, set())


@pytest.mark.faults
def test_shards_are_compacted_each_by_itself(make_world: MakeWorld, embedding: Make) -> None:
    world = make_world(delta_limit=LIMIT)
    everyone = people(embedding, 900)
    for number in range(1, SHARDS + 1):
        start_shard(world, number)
    world.start("sink")
    publish(world, everyone)
    world.wait(lambda: len(galleries(world.settings)) == SHARDS and world.settled(), "every shard has matched")
    said = compacted(world, "--collection", "c")
    assert all(f"shard {number}/{SHARDS}" in said for number in range(1, SHARDS + 1))
    world.wait(
        lambda: all(one.vitals.compacted_at is not None for one in galleries(world.settings)), "every matcher takes it"
    )
    later = twins(everyone[:200], "twin")
    publish(world, later)
    world.wait(lambda: world.count("checked") == 1100, "everyone is checked")
    assert found(world) == expected_pairs([*everyone, *later])


@pytest.mark.faults
def test_what_if_the_threshold_were_another(make_world: MakeWorld) -> None:
    """What it answers is what a compaction with that setting then does."""
    world = matched(make_world, 800)
    assert_as_the_oracle(world)
    compacted(world)
    world.wait(lambda: is_taken_over(world), "what was compacted is taken up")
    ends, redis = [world.ends(topic) for topic in (DUPLICATES, CERTIFICATES)], chunks(world)
    said = compacted(world, "--threshold", "0.40", command=WHAT_IF)
    assert [world.ends(topic) for topic in (DUPLICATES, CERTIFICATES)] == ends
    assert (chunks(world), inbox(world).entries()) == (redis, {})
    assert "nothing is changed" in said
    world.workers["match"].stop()
    world.env["FACEMATCH_THRESHOLDS"] = json.dumps(thresholds_of_tests(0.40))
    compacted(world)
    world.wait(lambda: len(certificates(world)) == 2, "the second certificate")
    done = certificates(world)[1].pairs
    assert done.retracted > 10
    assert done.found == 0
    for name, count in (("kept", done.kept), ("found", 0), ("retracted", done.retracted)):
        assert re.search(rf"pairs {name} +│ {count} ", said), said
    living = oracle.living(crowd(800, seed=1)).values()
    near = {(pair.a, pair.b) for pair in oracle.pairs(living, 0.4)}
    world.wait(lambda: world.pairs() == near, "Postgres has the pairs of the lower threshold alone")


@pytest.mark.faults
def test_a_collection_in_which_nobody_is_left_is_certified(make_world: MakeWorld, embedding: Make) -> None:
    world = matched(make_world, 600)
    everyone = {event.individual_id: event.revision for event in crowd(600, seed=1)}
    gone = [EncodingErased(collection="c", individual_id=who, revision=9) for who in everyone]
    publish(world, gone)
    world.wait(world.settled, "all are erased")
    assert world.pairs() == set()
    assert "nobody is living in it" in compacted(world)
    world.wait(lambda: len(certificates(world)) == 1, "the certificate")
    (certificate,) = certificates(world)
    assert (certificate.people, certificate.encoder, certificate.index) == (0, None, None)
    with world.connect() as connection:
        assert connection.scalars(select(retractions.c.reason)).all() == []
    assert "0: nobody is living in it" in run(world, "-m", "deploy.cli", "certificates").stdout


@pytest.mark.faults
def test_what_others_published_meanwhile_is_not_hidden(make_world: MakeWorld) -> None:
    """Kafka keeps the last record of a pair: a retraction that comes late must not be it."""
    world = matched(make_world, 600)
    assert_as_the_oracle(world)
    event = max(
        (one for one in world.events(DUPLICATES) if isinstance(one, DuplicateFound)), key=lambda one: one.distance
    )
    updated = event.model_copy(update={"b": Member(individual_id=event.b.individual_id, revision=event.b.revision + 1)})

    def find_again(what: str, done: int, total: int, detail: str = "") -> None:
        if (what, done) == ("publishing", 0):
            world.publish([announce(updated, "t")])

    settings = world.settings.model_copy(update={"thresholds": thresholds_of_tests(0.40)})
    with open_compactor(settings, Shard(), PARTITION, 1, find_again) as compactor:
        (certificate,) = compactor.run()
    assert certificate.pairs.retracted >= 1
    of_pair = [one for one in world.events(DUPLICATES) if one.key == event.key]
    assert of_pair[-1] == updated
    assert any(isinstance(one, DuplicateRetracted) for one in of_pair)
    world.wait(world.settled, "all of that is in the tables")
    assert tuple(sorted((event.a.individual_id, event.b.individual_id))) in world.pairs()


def test_a_missed_run_is_made_up_for(make_world: MakeWorld) -> None:
    world = make_world()
    publish(world, crowd(100, seed=1))
    done = f"{world.name}:compaction-done"
    redis = Redis.from_url(world.settings.redis)
    before = (datetime.now(UTC) - timedelta(days=3)).isoformat().encode()
    redis.set(done, before)
    world.start("sink")
    world.env |= {"FACEMATCH_COMPACT_AT": "0 2 * * *", "FACEMATCH_TIME_ZONE": "Europe/Zurich"}
    world.start("compactor")
    world.wait(lambda: len(certificates(world)) == 1, "what was missed is made up for")
    world.wait(lambda: redis.get(done) != before, "that it was")
    world.workers["compactor"].stop()
    world.workers["compactor"].start()
    begin = len(world.lines)
    world.wait(lambda: "compaction is scheduled" in {line["event"] for line in world.said(begin)}, "it is there again")
    assert len(certificates(world)) == 1
    said = {line["event"]: line for line in world.said()}
    assert "a compaction was missed: it begins now" in said
    assert [said["compacted"]["certificate"]] == [one.certificate_id for one in certificates(world)]
    assert world.restarts() == {}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--threshold", "2"), "a threshold is above 0 and below 2"),
        (("--recall-floor", "1"), "a recall floor is above 0 and below 1"),
        (("--findings-limit", "5"), "--whole goes with"),
        (("--json",), "--whole goes with"),
        (("--since", "1d"), "--whole goes with"),
    ],
)
def test_what_if_refuses_what_makes_no_sense(arguments: tuple[str, ...], text: str) -> None:
    """With exit status 2, before any server is asked."""
    wrong = CliRunner().invoke(app, [*WHAT_IF, *arguments])
    assert wrong.exit_code == 2
    assert text in re.sub(r"[\s│]+", " ", wrong.output)


@pytest.mark.parametrize(
    ("schedule", "time_zone", "text"),
    [
        ("0 25 * * *", "UTC", "Bad hour. Five fields are expected"),
        ("0 2 30 2 *", "UTC", "Bad day-of-month"),
        ("nightly", "UTC", "Five fields are expected"),
        ("0 2 * * *", "Zurich", "not in the tz database"),
    ],
)
def test_a_compactor_refuses_a_schedule_that_makes_no_sense(schedule: str, time_zone: str, text: str) -> None:
    env = {"FACEMATCH_COMPACT_AT": schedule, "FACEMATCH_TIME_ZONE": time_zone}
    wrong = CliRunner().invoke(app, ["compactor"], env=env)
    assert wrong.exit_code == 2
    assert text in re.sub(r"[\s│]+", " ", wrong.output)


def test_what_cannot_be_compacted_is_said(make_world: MakeWorld) -> None:
    world = make_world()
    unknown = compact(world, "--collection", "nowhere")
    assert unknown.returncode == 2
    assert "nobody was ever registered in collection nowhere" in unknown.stderr.replace("\n", " ")
    unused = compact(world, "--encoder", "none")
    assert unused.returncode == 2
    assert "nobody has an embedding of encoder none" in re.sub(r"[\s│]+", " ", unused.stderr)
    assert "there is nothing to compact" in compacted(world)
    assert world.ends(CERTIFICATES) == {0: 0}
    publish(world, [EncodingErased(collection="c", individual_id="a", revision=1)])
    assert "0: nobody is living in it" in compacted(world, "--collection", "c")


def test_checkpoints_of_a_number_of_shards_out_of_use_go(make_world: MakeWorld, embedding: Make) -> None:
    """They hold embeddings of people who were erased since."""
    world = make_world(delta_limit=100)
    redis = connect(world.settings)
    gone = people(embedding, 1, "gone")

    def keys(count: int) -> list[bytes]:
        names = keys_of_counts(redis, world.settings).items()
        return [name for (_, shards), found in names if shards == count for name in found]

    def is_in_redis() -> bool:
        assert isinstance(gone[0], EncodingComputed)
        return any(gone[0].embedding.tobytes() in value_of(redis, name) for name in keys(2) if b":chunk:" in name)

    for number in (1, 2):
        start_shard(world, number, 2)
    world.publish(messages([*people(embedding, 400), *gone]))
    world.wait(is_in_redis, "a checkpoint of two shards has them")
    for number in (1, 2):
        world.workers.pop(f"match-{number}").stop()
    world.publish(messages([EncodingErased(collection="c", individual_id="gone0", revision=2)]))
    assert remove_retired(redis, world.settings) == 0, "no other number of shards is at work"
    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)
    for vitals in read_vitals(redis, world.settings):
        write_vitals(redis, world.settings, Shard.parse(vitals.shard), vitals.model_copy(update={"at": an_hour_ago}))
    assert is_in_redis()
    world.start("match")
    world.wait(lambda: keys(2) == [], "the matcher of all shards has removed it")
    assert keys(1)
    redis.set(key(world.settings, "chunk:left", "3/3", partition_of("c", ENCODINGS.partitions)), b"x")
    compacted(world, "--collection", "c")
    assert keys(3) == []
    assert keys(1)
