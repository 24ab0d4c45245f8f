"""The simulation's Redis and tables do what Valkey and Postgres do: the same commands and batches, the same outcome."""

import json
import random
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.sql.schema import Table

from consumers.sink.batch import Tables
from consumers.sink.postgres import PostgresTables
from runtime.servers.redis import connect
from schemas.envelope import Message, Record, Source, decode
from schemas.erased import NOBODY, ErasureKey
from schemas.events.base import Member
from schemas.events.pairs import (
    DuplicateFound,
    DuplicateRetracted,
    FindingErased,
    IndividualChecked,
    PairDecided,
    RetractionReason,
)
from schemas.tables import duplicates, erased, individuals, retractions
from schemas.topics import DUPLICATES, ENCODINGS
from streams.checkpoint import handover, progress
from tests.integration.world import World
from tests.simulation.redis import PUT, REPLACE, MemoryRedis
from tests.simulation.run import simulate
from tests.simulation.tables import MemoryTables

VALUES = [b"", b"1", b"7", b"10", b"12"]


@pytest.mark.parametrize("seed", range(5))
def test_the_redis_in_memory_answers_as_valkey(world: World, seed: int) -> None:
    """Commands and scripts at random, on few keys, so that all outcomes of the scripts are met."""
    chance = random.Random(seed)
    prefix = f"{world.name}-{seed}:"
    strings, hashes = [f"{prefix}s{n}" for n in range(4)], [f"{prefix}h{n}" for n in range(2)]
    real, memory = connect(world.settings), MemoryRedis()
    scripts = [progress._ONLY_GROW, REPLACE, PUT, handover._REMOVE, handover.UNLINK]
    registered: list[list[Any]] = [[one.register_script(text) for text in scripts] for one in (real, memory)]
    for _ in range(400):
        name, other, table = chance.choice(strings), chance.choice(strings), chance.choice(hashes)
        value, second, field = chance.choice(VALUES), chance.choice(VALUES), chance.choice(("f", "g"))
        number = chance.randrange(1, 20)
        calls: list[tuple[Any, ...]] = [
            ("get", name),
            ("set", name, value),
            ("set", name, str(number).encode(), 100),
            ("delete", name),
            ("unlink", name, other),
            ("hgetall", table),
            (0, [f"{prefix}matched"], [number]),
            (1, [name, table, *strings[: chance.randrange(3)]], [value, second, field, value]),
            (2, [name, table, *strings[: chance.randrange(3)]], [value, field, second]),
            (3, [table], [field, value]),
            (4, [name, other], [value]),
        ]
        what, *arguments = chance.choice(calls)
        answers = [
            registered[at][what](keys=arguments[0], args=arguments[1])
            if isinstance(what, int)
            else getattr(one, what)(*arguments[:2], **({"ex": arguments[2]} if len(arguments) == 3 else {}))
            for at, one in enumerate((real, memory))
        ]
        assert answers[0] == answers[1] or what == "set", (what, arguments)
        for one in (*strings, *hashes):
            assert (real.ttl(one) > 0) == (one in memory.expiring), (what, arguments)
        assert sorted(real.scan_iter(match=f"{prefix}*")) == sorted(memory.scan_iter(match=f"{prefix}*"))
    real.close()


@pytest.mark.parametrize("seed", range(8))
def test_the_tables_in_memory_are_those_of_postgres(world: World, seed: int) -> None:
    """What a whole run of the simulation published, in batches, some of them twice, from both topics in any order."""
    chance = random.Random(seed)
    run = simulate(seed)
    topics = [run.topics[name].history for name in (ENCODINGS.name, DUPLICATES.name)]
    assert world.settings.erasure_key is not None
    key = ErasureKey(world.settings.erasure_key)
    published: list[list[Record]] = [[], []]
    real, memory = PostgresTables(world.engine, key, NOBODY), MemoryTables(key, NOBODY)
    begins = [0, 0]
    while any(begin < len(topic) for begin, topic in zip(begins, topics, strict=True)):
        batch = []
        for at in chance.sample((0, 1), 2):
            end = begins[at] + chance.randrange(10)
            batch += topics[at][max(0, begins[at] - chance.choice((0, 0, 3))) : end]
            begins[at] = end
        events = [(decode(record), record.timestamp) for record in batch]
        real.write(events, published[0].extend)
        memory.write(events, published[1].extend)
        assert published[0] == published[1]
    with world.connect() as connection:
        held = {table.name: _rows(connection, table) for table in (individuals, duplicates, retractions, erased)}
    for name, rows in {
        "individuals": memory.individuals.values(),
        "duplicates": memory.duplicates.values(),
        "retractions": memory.retractions.values(),
    }.items():
        assert held[name] == {_known(dict(row)) for row in rows}
    assert len(held["erased"]) == len(memory.erased)


def test_what_the_sink_restored_behind_something_newer_is_followed_by_that(world: World) -> None:
    """The sink read a null value and published again what its tables had; something newer came in between."""
    assert world.settings.erasure_key is not None
    key = ErasureKey(world.settings.erasure_key)
    found, later = pair_at(1), pair_at(2)
    gone = DuplicateRetracted(**dict(found), reason=RetractionReason.UPDATED)
    checks = [
        IndividualChecked(collection="c", individual_id="x", revision=n, encoder="e", duplicates=0) for n in (1, 2)
    ]
    verdicts = [
        PairDecided.model_validate(
            {"collection": "c", "encoder": "e", "a": "x", "b": "y", "verdict": verdict, "by": "r"}
        )
        for verdict in ("different", "same")
    ]
    for case, (older, newer, follows) in enumerate(
        [
            (found, gone, FindingErased(collection="c", erased_key=found.key)),
            (found, later, later),
            (checks[0], checks[1], FindingErased(collection="c", erased_key="c/x")),  # of whom the encoder is not known
            (verdicts[0], verdicts[1], verdicts[1]),
        ]
    ):
        real, memory = PostgresTables(world.engine, key, NOBODY), MemoryTables(key, NOBODY)
        both: list[Tables] = [real, memory]
        for tables in both[: 1 if isinstance(older, PairDecided) else 2]:  # those in memory have no decisions
            published: list[Record] = []
            for event, second, source in ((newer, 2, "test"), (older, 1, Source.SINK), (newer, 2, Source.SINK)):
                published.clear()
                message = Message(event, f"{case}-{second}", datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC), source)
                tables.write([(message, 0)], published.extend)
                expected = [follows] if event is older else []
                assert [decode(record).event for record in published] == expected
                assert [record.headers[3] for record in published] == [("ce_source", Source.SINK.encode())] * len(
                    expected
                )


def pair_at(revision: int) -> DuplicateFound:
    a, b = (Member(individual_id=who, revision=revision) for who in "xy")
    return DuplicateFound(collection="c", encoder="e", a=a, b=b, distance=0.1, threshold=0.5)


def _rows(connection: Any, table: Table) -> set[frozenset[tuple[str, str]]]:
    return {_known(dict(row)) for row in connection.execute(select(table)).mappings()}


def _known(row: dict[str, Any]) -> frozenset[tuple[str, str]]:
    """What is not NULL, but for when Postgres wrote it. Postgres orders the keys of JSON by itself."""
    texts = {
        name: json.dumps(value, sort_keys=True) if isinstance(value, dict) else str(value)
        for name, value in row.items()
    }
    return frozenset((name, texts[name]) for name in row if row[name] is not None and name != "recorded_at")
