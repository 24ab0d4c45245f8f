"""`facematch compact` on real servers: matchers take up what it builds while they match, and nothing is lost."""

import os
import signal
import subprocess
import sys
import time

import pytest
from redis import Redis

from deploy.queries import galleries
from schemas.events import EncodingErased
from schemas.shard import Shard
from streams import lease as leases
from streams import segment as segments
from streams.compactor import Compactor, Progress
from streams.connection import connect, key
from streams.inbox import Inbox, LostChunksError
from streams.lease import Lease, LeaseLostError, lease_of
from streams.vitals import ScopeVitals
from tests import oracle
from tests.conftest import Make
from tests.encodings import crowd, twins
from tests.integration.conftest import MakeWorld
from tests.integration.faults import publish
from tests.integration.judge import assert_as_the_oracle
from tests.integration.test_checkpoints import PARTITION, chunk_keys, manifest, restart
from tests.integration.test_matcher import checked, expected_pairs, found, people
from tests.integration.test_shards import SHARDS, start_shard
from tests.integration.world import World

LIMIT = 500
KILLED = """
import os, signal, sys
from schemas.settings import Settings
from schemas.shard import Shard
from streams.compactor import Compactor

def progress(what, done, total):
    if what.startswith(sys.argv[1]) and done == total * int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

list(Compactor(Settings(), Shard(), int(sys.argv[3]), 1, progress).run(None))
"""


def run(world: World, *command: str) -> "subprocess.CompletedProcess[str]":
    env = os.environ | world.stack.addresses | world.env
    return subprocess.run([sys.executable, *command], env=env, capture_output=True, text=True, timeout=120, check=False)


def compact(world: World, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The command, as operations types it."""
    return run(world, "-m", "deploy.cli", "compact", *arguments)


def compacted(world: World, *arguments: str) -> str:
    done = compact(world, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def compactor(world: World, progress: Progress = lambda *_: None) -> Compactor:
    return Compactor(world.settings, Shard(), PARTITION, 1, progress)


def inbox(world: World, shard: Shard = Shard()) -> Inbox:
    return Inbox(world.settings, connect(world.settings), shard, PARTITION)


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
    world = matched(make_world, 3000)
    living = len(oracle.living(crowd(3000, seed=1)))
    assert "1.0000" in compacted(world)
    publish(world, crowd(400, seed=2, prefix="q"))
    world.wait(lambda: is_taken_over(world), "the matcher's checkpoint has what was compacted")
    assert_as_the_oracle(world)
    world.wait(
        lambda: scope(world).compacted_at is not None and scope(world).people > living, "the matcher speaks of all that"
    )
    after = scope(world)
    assert len(after.segments) == 1
    assert after.segments[0].rows == living
    assert after.people <= after.segments[0].living + after.delta  # some who came since are erased
    assert chunks(world) == named(world)
    assert all(Redis.from_url(world.settings.redis).ttl(name) == -1 for name in chunk_keys(world))
    restart(world)
    publish(world, crowd(400, seed=3, prefix="r"))
    assert_as_the_oracle(world)
    assert world.restarts() == {}


@pytest.mark.faults
@pytest.mark.parametrize(("phase", "end"), [("reading", "1"), ("building", "0"), ("storing", "0"), ("storing", "1")])
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
    redis.delete(lease_key(world))  # as it is after half a minute
    (result,) = compactor(world).run("c")
    assert result.quality.recall >= 0.999
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
    list(compactor(world).run(None))
    redis = Redis.from_url(world.settings.redis)
    left = {chunk for one in inbox(world).entries().values() for chunk in one.segment.blob.chunks()}
    redis.delete(next(name for name in chunk_keys(world) if name.partition(":chunk:")[2] in left))
    redis.hset(inbox(world).key, "d/test", "garbage")
    begin = len(world.lines)
    world.workers["match"].start()
    world.wait(lambda: redis.hlen(inbox(world).key) == 0, "what cannot be used is removed")
    said = "\n".join(world.lines.since(begin))
    assert "d/test: a compacted segment is not used" in said
    assert "is missing" in said
    publish(world, crowd(200, seed=2, prefix="q"))
    assert_as_the_oracle(world)
    assert world.restarts() == {}


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
    world = make_world()
    redis, name = connect(world.settings), lease_key(world)
    begun = time.monotonic()
    with lease_of(redis, name) as lease:
        world.wait(lambda: time.monotonic() - begun > 2, "twice the time for which it is kept without a sign of life")
        lease.check()
        assert redis.get(name) == lease.token.encode()
    assert redis.get(name) is None


def test_one_that_was_frozen_past_its_lease_changes_nothing(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It wakes up after another took over and finished, and does not know."""
    world = make_world()
    publish(world, crowd(100, seed=1))
    finished: list[object] = []

    def freeze(what: str, done: int, total: int) -> None:
        if what == "storing" and done == total and not finished:
            Redis.from_url(world.settings.redis).delete(lease_key(world))  # it ran out
            publish(world, crowd(50, seed=2, prefix="q"))
            finished.extend(compactor(world).run(None))
            finished.append(inbox(world).entries())

    monkeypatch.setattr(Lease, "check", lambda _: None)  # that it was frozen it has not noticed
    with pytest.raises(LeaseLostError):
        list(compactor(world, freeze).run(None))
    assert inbox(world).entries() == finished[1]
    assert [one.offset for one in inbox(world).entries().values()] == [150]
    list(compactor(world).run(None))
    assert chunks(world) == named(world)


def test_one_that_stood_still_finds_out_before_it_stores_anything(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    publish(world, crowd(100, seed=1))
    monkeypatch.setattr(leases, "_KEPT_S", 0.01)
    monkeypatch.setattr(leases, "_RENEWED_EVERY_S", 100)
    with pytest.raises(LeaseLostError, match="not renewed"):
        list(compactor(world, lambda *_: None).run(None))
    assert chunks(world) == set()


@pytest.mark.faults
@pytest.mark.parametrize("lease_survives", [False, True])
def test_a_redis_that_is_emptied_in_the_middle_ends_it(make_world: MakeWorld, lease_survives: bool) -> None:
    world = matched(make_world, 1500)

    def empty(what: str, done: int, total: int) -> None:
        if what == "storing" and done == total:
            redis = Redis.from_url(world.settings.redis)
            kept = redis.get(lease_key(world)) if lease_survives else None
            redis.delete(*redis.keys(f"{world.name}:*"))
            if kept is not None:
                redis.set(lease_key(world), kept)

    with pytest.raises(LostChunksError if lease_survives else LeaseLostError):
        list(compactor(world, empty).run(None))
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
    monkeypatch.setattr(segments, "DENSITIES", (segments.Density(2, 4, 8),))
    monkeypatch.setattr(segments, "_EFS", (8,))
    (result,) = compactor(world).run(None)
    assert not result.is_put_into_service
    assert (inbox(world).entries(), chunks(world)) == ({}, set())


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


def test_what_cannot_be_compacted_is_said(make_world: MakeWorld) -> None:
    world = make_world()
    unknown = compact(world, "--collection", "nowhere")
    assert unknown.returncode == 2
    assert "nobody was ever registered in collection nowhere" in unknown.stderr.replace("\n", " ")
    assert "there is nothing to compact" in compacted(world)
    publish(world, [EncodingErased(collection="c", individual_id="a", revision=1)])
    assert "nobody is registered" in compacted(world, "--collection", "c")
