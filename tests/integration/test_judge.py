"""The judge sees what is wrong: what fault tests hold is worth nothing otherwise."""

import pytest
from sqlalchemy import delete, insert, update

from schemas.envelope import announce
from schemas.events.base import Member
from schemas.events.encodings import EncodingErased
from schemas.events.pairs import DuplicateFound, IndividualChecked
from schemas.tables import duplicates, individuals
from tests.conftest import Make
from tests.encodings import computed, crowd
from tests.integration.judge import assert_as_the_oracle
from tests.integration.world import World
from tests.soak.judgement import judge


def test_every_kind_of_damage_is_seen(world: World, embedding: Make) -> None:
    face = embedding()
    world.start("match", "sink")
    events = [computed("x", face), EncodingErased(collection="c", individual_id="x", revision=2), computed("y", face)]
    world.publish([announce(event, "test") for event in [*crowd(200, seed=4), *events]])
    assert_as_the_oracle(world)

    never = Member(individual_id="x", revision=1), Member(individual_id="y", revision=1)
    finding = DuplicateFound(collection="c", encoder="test", a=never[0], b=never[1], distance=0.0, threshold=0.45)
    outdated = IndividualChecked(collection="c", individual_id="y", revision=9, encoder="test", duplicates=0)
    world.publish([announce(finding, "test"), announce(outdated, "test")])
    with world.engine.begin() as connection:
        connection.execute(update(duplicates).values(distance=duplicates.c.distance + 0.001))
        connection.execute(insert(individuals).values(collection="c", individual_id="x", registered_revision=1))
    with pytest.raises(AssertionError) as judgement:
        assert_as_the_oracle(world, dead_letters=1)
    soaked = judge(world)
    assert not soaked.is_right
    assert "table individuals: a row of c, ['x']" in soaked.left
    with world.engine.begin() as connection:
        connection.execute(delete(duplicates))
    with pytest.raises(AssertionError, match="pairs missing in Postgres"):
        assert_as_the_oracle(world)
    assert judge(world).missing == soaked.pairs > 0
    for problem in (
        "1 findings on the topic that were never true",
        "1 (key, living revision, checked revision) not checked on the topic: ('c/y', 1, 9)",
        "pairs with another distance in Postgres",
        "(key, state that it should have, state in Postgres): ('c/x', 'erased'",
        "0 dead letters, not 1",
    ):
        assert problem in str(judgement.value)
