"""One revision with two contents, and pairs of revisions that are past: what the tables have, and who sees it."""

import itertools
import json
import random

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client import REGISTRY
from sqlalchemy import select
from typer.testing import CliRunner

from consumers.sink.gauges import TableGauges
from consumers.sink.postgres import PostgresTables
from consumers.views.pairs import PairSelection, count_pairs, current_pairs
from deploy.cli import app
from schemas.envelope import announce
from schemas.erased import NOBODY, ErasureKey
from schemas.events.base import Event, Member
from schemas.events.pairs import DuplicateFound, IndividualChecked, PairDecided, RetractionReason
from schemas.events.registrations import IndividualCreated, IndividualUpdated, Photo
from schemas.tables import duplicates, individual_duplicates, individuals
from tests.encodings import computed
from tests.integration.world import ERASURE_KEY, World


def write(world: World, *batches: list[Event]) -> None:
    """Write events into the tables, as a sink does, a batch at a time."""
    tables = PostgresTables(world.engine, ErasureKey(ERASURE_KEY), NOBODY)
    for batch in batches:
        tables.write([(announce(event, "test"), 0) for event in batch], lambda _: None)


def registered(who: str, revision: int, photo: str, **attributes: str) -> IndividualCreated:
    return IndividualCreated(
        collection="c", individual_id=who, revision=revision, photo=Photo(uri=photo), attributes=attributes
    )


def checked(who: str, revision: int, shard: int = 1, shards: int = 1) -> IndividualChecked:
    return IndividualChecked(
        collection="c", individual_id=who, revision=revision, encoder="e", duplicates=0, shard=shard, shards=shards
    )


def found(a: tuple[str, int], b: tuple[str, int]) -> DuplicateFound:
    one, other = (Member(individual_id=name, revision=revision) for name, revision in (a, b))
    return DuplicateFound(collection="c", encoder="e", a=one, b=other, distance=0.2, threshold=0.45)


def conflicting(world: World) -> dict[str, tuple[str | None, bool]]:
    """The photo of each individual, and whether the registrations conflict."""
    view = individual_duplicates.c
    with world.connect() as connection:
        rows = connection.execute(select(view.individual_id, view.photo, view.conflicting))
        return {who: (photo, conflicts) for who, photo, conflicts in rows}


def facematch(world: World, *arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), env=world.env)
    assert done.exit_code == 0, done.output
    return done.output


def test_of_two_contents_of_one_revision_the_later_counts_and_is_seen_to_conflict(world: World) -> None:
    first, second = registered("a", 1, "file:///1.jpg"), registered("a", 1, "file:///2.jpg")
    write(world, [first], [second], [registered("b", 1, "file:///b.jpg", x="1"), registered("b", 1, "file:///b.jpg")])
    write(
        world, [registered("c", 1, "file:///c.jpg", x="1", y="2")], [registered("c", 1, "file:///c.jpg", y="2", x="1")]
    )
    expected = {"a": ("file:///2.jpg", True), "b": ("file:///b.jpg", True), "c": ("file:///c.jpg", False)}
    assert conflicting(world) == expected
    write(world, [first, second], [first], [second])  # a part of the log again
    assert conflicting(world) == expected
    gauges = TableGauges(world.engine)
    gauges.refresh()
    assert REGISTRY.get_sample_value("facematch_conflicting_individuals") == 2
    assert "c: 2 registered with different contents at one revision" in facematch(world, "status")
    lines = map(json.loads, facematch(world, "conflicts", "--json").splitlines())
    assert [(line["individual_id"], line["photo"]) for line in lines] == [
        ("a", "file:///2.jpg"),
        ("b", "file:///b.jpg"),
    ]

    write(world, [registered("a", 2, "file:///3.jpg"), registered("b", 2, "file:///4.jpg")])
    assert conflicting(world) == {**expected, "a": ("file:///3.jpg", False), "b": ("file:///4.jpg", False)}
    assert "different contents" not in facematch(world, "status")


def test_inline_photos_of_one_revision_conflict_too(world: World) -> None:
    one, other = (
        IndividualUpdated(collection="c", individual_id="a", revision=1, photo=Photo(inline=photo))
        for photo in ("QUJD", "QUJE")
    )
    write(world, [one], [one])
    assert conflicting(world) == {"a": ("inline", False)}
    write(world, [one, other])
    assert conflicting(world) == {"a": ("inline", True)}


def test_a_row_from_before_contents_were_kept_does_not_conflict(world: World) -> None:
    write(world, [registered("a", 1, "file:///1.jpg")])
    with world.engine.begin() as connection:
        connection.execute(individuals.update().values(content=None))
    write(world, [registered("a", 1, "file:///1.jpg")])
    assert conflicting(world) == {"a": ("file:///1.jpg", False)}


@pytest.mark.parametrize("seed", range(4))
def test_a_pair_of_a_revision_that_is_past_is_none(world: World, seed: int) -> None:
    """No retraction came: the index had missed the old pair. In any order, and of shards once all have reported."""
    events = [
        found(("a", 1), ("b", 1)),
        checked("a", 2),
        found(("c", 1), ("d", 1)),
        checked("d", 2),
        found(("c", 1), ("d", 2)),
        found(("e", 1), ("f", 1)),
        checked("f", 2, shard=1, shards=2),
        found(("g", 1), ("h", 1)),
        checked("h", 2, shard=1, shards=2),
        checked("h", 2, shard=2, shards=2),
        found(("i", 1), ("j", 2)),
        checked("i", 1),
        checked("j", 2),
    ]
    random.Random(seed).shuffle(events)
    size = random.Random(seed).randint(1, 4)
    write(world, *(events[begin : begin + size] for begin in range(0, len(events), size)))
    assert world.pairs() == {("c", "d"), ("e", "f"), ("i", "j")}
    with world.connect() as connection:
        query = select(duplicates.c.individual_a, duplicates.c.retracted).where(duplicates.c.retracted.is_not(None))
        reasons = {row.individual_a: row.retracted for row in connection.execute(query)}
    assert reasons == {"a": RetractionReason.UPDATED, "g": RetractionReason.UPDATED}
    write(world, [found(("a", 1), ("b", 1))], [found(("a", 2), ("b", 1))])
    assert world.pairs() == {("a", "b"), ("c", "d"), ("e", "f"), ("i", "j")}


def test_pairs_are_listed_page_by_page_and_counted_by_what_is_decided(world: World) -> None:
    """Decided by name: a pair of another encoder is decided too, and no pair twice by two decisions."""
    names = "abcdefg"
    decisions: list[Event] = [
        PairDecided(collection="c", encoder=encoder, a="a", b="b", verdict=verdict, by="x")
        for encoder, verdict in (("e", "different"), ("e", "same"), ("another", "same"))
    ]
    elsewhere = found(("a", 1), ("b", 1)).model_copy(update={"collection": "d"})
    past: list[Event] = [found(("y", 1), ("z", 1)), checked("y", 2)]
    chain: list[list[Event]] = [[found((a, 1), (b, 1))] for a, b in itertools.pairwise(names)]
    write(world, *chain, decisions, [elsewhere], past)
    with world.connect() as connection:
        assert count_pairs(connection) == {"c": (5, 1), "d": (1, 0)}
        everything = current_pairs(connection, PairSelection("c", decided=True))
        assert [pair.individual_a + pair.individual_b for pair in everything] == ["ab", "bc", "cd", "de", "ef", "fg"]
        assert [pair.verdict for pair in everything] == ["same", *[None] * 5]
        pages = [current_pairs(connection, PairSelection("c", limit=2))]
        while pages[-1]:
            pages.append(current_pairs(connection, PairSelection("c", after=pages[-1][-1].pair_id, limit=2)))
    assert [len(page) for page in pages] == [2, 2, 1, 0]
    assert [pair.pair_id for page in pages for pair in page] == [pair.pair_id for pair in everything[1:]]
    lines = facematch(world, "duplicates", "--json", "--limit", "1", "--after", everything[2].pair_id).splitlines()
    assert [json.loads(line)["individual_b"] for line in lines] == ["e"]


def near(embedding: NDArray[np.float32], distance: float) -> NDArray[np.float32]:
    moved = embedding.copy()
    moved[0] += distance
    return moved


def test_two_photos_of_one_revision_end_with_the_pair_of_the_later_one(world: World) -> None:
    """found, retracted, found: the second finding counts in Postgres too, as soon as it is there."""
    one, stranger = np.eye(2, 128, dtype=np.float32)
    world.start("match", "sink")
    photos = [one, stranger, near(one, 0.1)]
    world.publish([announce(computed("a", one), "test")])
    world.wait(lambda: set(world.states()) == {"a"} and world.count("checked") == 1, "a is checked")
    for number, embedding in enumerate(photos):
        photo = registered("b", 1, f"file:///{number}.jpg")
        world.publish([announce(photo, "test"), announce(computed("b", embedding), "test")])
        pairs = {("a", "b")} if embedding is not stranger else set()
        world.wait(lambda pairs=pairs: world.pairs() == pairs, f"{pairs} after photo {number}")  # type: ignore[misc]
    world.wait(lambda: conflicting(world)["b"] == ("file:///2.jpg", True), "the last photo is the one that is shown")
