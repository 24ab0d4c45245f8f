"""What the topics and the tables must say at the end, counted: what is missing, what is too much, what is left."""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import select

from schemas.envelope import decode
from schemas.events.base import individual_key
from schemas.tables import checks, decisions, duplicates, individuals, retractions
from schemas.topics import DECISIONS, DUPLICATES, ENCODINGS
from tests.integration.judge import Truth, pairs_in_postgres, pairs_on_the_topic, problems_of
from tests.integration.world import World


@dataclass(frozen=True, slots=True)
class Judgement:
    """Pairs that are missing, pairs that are too many, and places that still hold something of the erased.

    `problems` are these in words, and whatever else is not as the oracle has it.
    """

    living: int
    erased: int
    pairs: int
    missing: int
    extra: int
    left: list[str]
    problems: list[str]

    @property
    def is_right(self) -> bool:
        """Whether there is nothing to complain of."""
        return not (self.missing or self.extra or self.left or self.problems)

    def __str__(self) -> str:
        return (
            f"{self.living} living, {self.erased} erased, {self.pairs} pairs: "
            f"{self.missing} missing, {self.extra} extra, {len(self.left)} left of the erased"
        )


def judge(world: World) -> Judgement:
    """Once every consumer group has processed its topics, compare all with all."""
    world.wait(world.settled, "every consumer group has processed its topics", limit_s=300)
    truth = Truth.of(world)
    gone = {key for key, state in truth.states.items() if state == "erased"}
    found = (pairs_on_the_topic(world), pairs_in_postgres(world))
    return Judgement(
        living=len(truth.living),
        erased=len(gone),
        pairs=len(truth.pairs),
        missing=sum(len(truth.pairs.keys() - one.keys()) for one in found),
        extra=sum(len(one.keys() - truth.pairs.keys()) for one in found),
        left=[*_left_on_topics(world, gone), *_left_in_tables(world, gone)],
        problems=problems_of(world, truth),
    )


def _left_on_topics(world: World, gone: set[str]) -> Iterator[str]:
    """Keys whose last record is about somebody erased and is not null: Kafka's compaction would keep it."""
    for topic in (ENCODINGS, DUPLICATES, DECISIONS):
        last = {record.key: record for record in world.read(topic)}
        for record in last.values():
            if record.value is None:
                continue
            event = decode(record).event
            if any(individual_key(event.collection, one.individual_id) in gone for one in event.subjects()):
                yield f"{topic.name}: {type(event).__name__} under {event.key}"


def _left_in_tables(world: World, gone: set[str]) -> Iterator[str]:
    with world.connect() as connection:
        for table in (individuals, checks, duplicates, retractions, decisions):
            names = [name for name in ("individual_id", "individual_a", "individual_b") if name in table.c]
            for collection, *ids in connection.execute(select(table.c.collection, *(table.c[name] for name in names))):
                if any(individual_key(collection, who) in gone for who in ids):
                    yield f"table {table.name}: a row of {collection}, {ids}"
