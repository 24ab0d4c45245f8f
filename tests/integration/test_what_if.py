"""`facematch what-if` on real servers: the pairs gained and lost, and nothing published or stored."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis
from typer.testing import CliRunner, Result

from deploy.cli import app
from schemas.envelope import announce
from schemas.topics import ENCODINGS, TOPICS, partition_of
from tests.integration.world import World
from tests.unit.test_match import computed, erased

Run = Callable[..., Result]


@pytest.fixture
def run(world: World, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `facematch what-if` in this process."""
    for name, value in (world.env | {"COLUMNS": "200"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("os.nice", lambda _: 0)  # the tests that come after keep their priority
    return lambda *arguments: CliRunner().invoke(app, ["what-if", *arguments])


def lines(result: Result) -> list[tuple[str, str, str, str]]:
    assert result.exit_code == 0, result.output
    found = map(json.loads, result.stdout.splitlines())
    return [(one["change"], one["collection"], one["a"], one["b"]) for one in found]


def test_pairs_gained_and_lost_are_said_and_nothing_is_done(world: World, run: Run) -> None:
    events = [
        *(computed(who, 1, place) for who, place in (("a", 0), ("b", 1), ("x", 4), ("y", 6))),
        *(computed(who, 1, place, collection="other") for who, place in (("p", 0), ("q", 2))),
        computed("c", 1, 2),
        erased("x", 2),
    ]
    world.publish([announce(event, "test") for event in events])
    before = [world.ends(topic) for topic in TOPICS]
    # Neighbours are 0.2 apart, the threshold is 0.45: a-b, b-c, a-c and p-q are pairs.
    assert lines(run("--threshold", "0.3", "--json")) == [("lost", "c", "a", "c"), ("lost", "other", "p", "q")]
    assert lines(run("--threshold", "0.3", "--collection", "c", "--json")) == [("lost", "c", "a", "c")]
    gained = lines(run("--threshold", "0.9", "--collection", "c", "--json"))
    assert gained == [("gained", "c", "c", "y")]
    budget = run("--candidates-per-newcomer", "0.1", "--json")
    assert lines(budget) == [], "no threshold follows from it for an encoder without operating points"
    part = ("--collection", "c", "--offsets", "1:3", "--json")
    assert lines(run("--threshold", "0.7", *part)) == [("gained", "c", "b", "x")]
    assert lines(run("--findings-limit", "1", "--json")) == [("lost", "c", "a", "c")]
    assert lines(run("--threshold", "0.3", "--until", "1h", "--json")) == []
    table = run("--threshold", "0.3")
    assert "other" in table.output
    assert "lost" in table.output
    assert [world.ends(topic) for topic in TOPICS] == before
    with Redis.from_url(world.settings.redis) as redis:
        assert redis.keys(f"{world.name}:*") == []


def test_what_makes_no_sense_is_said(world: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    world.publish([announce(computed("a", 1, 0), "test")])
    partition = partition_of("c", ENCODINGS.partitions)
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    for arguments, said in (
        ((), "suppose something"),
        (("--threshold", "2"), "a threshold is above 0 and below 2"),
        (("--candidates-per-newcomer", "0"), "a budget is above 0 and at most 1000"),
        (("--candidates-per-newcomer", "1", "--threshold", "0.4"), "suppose a threshold or a budget"),
        (("--findings-limit", "0"), "greater than or equal to 1"),
        (("--threshold", "0.4", "--since", tomorrow), "is in the future"),
        (("--threshold", "0.4", "--offsets", "0:1"), "name it with --collection"),
        (("--threshold", "0.4", "--collection", "c", "--offsets", "3:1"), "as 100:200"),
        (("--threshold", "0.4", "--collection", "c", "--offsets", "0:9"), f"partition {partition}, in which"),
        (("--threshold", "0.4", "--collection", "nowhere"), "nobody was registered in collection nowhere"),
        (("--encoder", "none"), "nobody has an embedding of encoder none"),
    ):
        wrong = run(*arguments)
        assert (wrong.exit_code, said in wrong.output) == (2, True), wrong.output
    monkeypatch.setenv("FACEMATCH_NAMESPACE", "nobody")
    assert "`facematch setup` has not created" in run("--threshold", "0.4").output
