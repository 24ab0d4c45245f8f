"""The judgement that every fault test ends with: topics and tables say what the oracle says."""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import select

from schemas.envelope import UnreadableError, decode
from schemas.erased import ErasureKey
from schemas.events.base import Event, IndividualEvent, individual_key
from schemas.events.encodings import EncodingComputed, EncodingErased, EncodingRejected
from schemas.events.pairs import DuplicateFound, IndividualChecked
from schemas.tables import duplicates, erased, individual_duplicates
from schemas.topics import DEAD_LETTERS, DUPLICATES, ENCODINGS, INDIVIDUALS, REJECTIONS, Topic
from tests import oracle
from tests.integration.world import World
from tests.oracle import Lifetime, Pair

_SAME = 1e-6
_SHOWN = 5


def assert_as_the_oracle(
    world: World,
    *,
    missing: int = 0,
    untrue: int = 0,
    dead_letters: int = 0,
    limit_s: float = 120,
) -> None:
    """Wait until all is processed, then compare what `duplicates` and Postgres say with the oracle.

    No pair holds but those of the latest revisions of two who live. `missing` is how many of the oracle's pairs an
    approximate index may have missed, of data that is not well separated; `untrue`, how many findings the test made up.
    """
    world.wait(world.settled, "every consumer group has processed its topics", limit_s)
    truth = Truth.of(world)
    problems = problems_of(world, truth, missing=missing, untrue=untrue, dead_letters=dead_letters)
    assert not problems, "\n".join([f"{len(truth.living)} living, {len(truth.pairs)} pairs; but:", *problems])


@dataclass
class Truth:
    """What `individuals`, `encodings` and `rejections` say from their beginning, and what follows from it."""

    living: dict[str, EncodingComputed]
    pairs: dict[Pair, float]
    states: dict[str, str]
    unanswered: set[str]
    left_stale: list[str]
    lifetimes: dict[tuple[str, int], Lifetime]

    @classmethod
    def of(cls, world: World) -> "Truth":
        """Read the topics, and compare all with all."""
        log = [(at, e) for at, e in _events(world, ENCODINGS) if isinstance(e, EncodingComputed | EncodingErased)]
        encodings = [event for _, event in log]
        living = oracle.living(encodings)
        right = oracle.latest(encodings)
        last = {event.key: event for event in encodings}
        latest: dict[str, tuple[int, str]] = {}
        for key, encoding in right.items():
            latest[key] = (encoding.revision, "checked" if key in living else "erased")
        for _, event in _events(world, REJECTIONS):
            assert isinstance(event, EncodingRejected)
            if event.revision > latest.get(event.key, (0, ""))[0]:
                latest[event.key] = (event.revision, "rejected")
        registered = [event for _, event in _events(world, INDIVIDUALS) if isinstance(event, IndividualEvent)]
        return cls(
            living,
            oracle.pairs(living.values(), world.threshold),
            {key: state for key, (_, state) in latest.items()},
            {event.key for event in registered if event.revision > latest.get(event.key, (0, ""))[0]},
            [
                key
                for key, event in last.items()
                if (event.revision, type(event)) != (right[key].revision, type(right[key]))
            ],
            oracle.lifetimes(log),
        )

    def holds(self, pair: Pair) -> bool:
        """Whether both sides are living at exactly these revisions."""
        sides = (self.living.get(individual_key(collection, who)) for collection, who, _ in pair.sides)
        return all(
            one is not None and (one.revision, one.encoder) == (revision, pair.encoder)
            for one, (_, _, revision) in zip(sides, pair.sides, strict=True)
        )

    def was_ever(self, event: DuplicateFound, threshold: float) -> bool:
        """Whether those two revisions were the latest at some one offset, and are as far apart as the finding says."""
        sides = oracle.pair_of(event).sides
        a, b = (self.lifetimes.get((individual_key(collection, who), revision)) for collection, who, revision in sides)
        if a is None or b is None or {a.encoding.encoder, b.encoding.encoder} != {event.encoder}:
            return False
        distance = oracle.exact_distance(a.encoding.embedding, b.encoding.embedding)
        together = a.begin < b.end and b.begin < a.end
        return together and distance <= threshold and abs(distance - event.distance) <= _SAME


def problems_of(world: World, truth: Truth, *, missing: int = 0, untrue: int = 0, dead_letters: int = 0) -> list[str]:
    """What is not as it must be, in words. See `assert_as_the_oracle`."""
    letters = len(world.read(DEAD_LETTERS))
    return [
        *_problems_of_the_topic(world, truth, missing, untrue),
        *_problems_of_the_tables(world, truth, missing),
        *([f"{letters} dead letters, not {dead_letters}"] if letters != dead_letters else []),
    ]


def pairs_on_the_topic(world: World) -> dict[Pair, float]:
    """The pairs, with their distances, of a consumer of `duplicates` that keeps the latest record of each key."""
    latest = {event.key: event for _, event in _events(world, DUPLICATES)}
    return {oracle.pair_of(e): e.distance for e in latest.values() if isinstance(e, DuplicateFound)}


def pairs_in_postgres(world: World) -> dict[Pair, float]:
    """The current pairs, with their distances."""
    columns = duplicates.c
    sides = (columns.individual_a, columns.revision_a, columns.individual_b, columns.revision_b)
    query = select(columns.collection, columns.encoder, *sides, columns.distance).where(columns.retracted.is_(None))
    with world.connect() as connection:
        return {Pair(*row[:6]): row[6] for row in connection.execute(query)}


def _problems_of_the_topic(world: World, truth: Truth, missing: int, untrue: int) -> list[str]:
    """A consumer that keeps the latest record of each key ends with the oracle's pairs, and everyone checked."""
    latest: dict[str, Event] = {}
    never: list[Pair] = []
    for _, event in _events(world, DUPLICATES):
        latest[event.key] = event
        if isinstance(event, DuplicateFound) and not truth.was_ever(event, world.threshold):
            never.append(oracle.pair_of(event))
    checked = {key: e.revision for key, e in latest.items() if isinstance(e, IndividualChecked)}
    unchecked = [
        (key, e.revision, checked.get(key)) for key, e in truth.living.items() if checked.get(key) != e.revision
    ]
    return [
        *_listed("findings on the topic that were never true", never, allowed=untrue),
        *_differences("the topic", pairs_on_the_topic(world), truth, missing),
        *_listed("(key, living revision, checked revision) not checked on the topic", unchecked),
        *_listed("registered and never answered", sorted(truth.unanswered)),
        *_listed("keys of which Kafka's compaction would keep a stale encoding", truth.left_stale),
    ]


def _problems_of_the_tables(world: World, truth: Truth, missing: int) -> list[str]:
    """Postgres holds the same pairs, and everyone is in the right state."""
    view = individual_duplicates.c
    individuals = select(view.collection, view.individual_id, view.state)
    with world.connect() as connection:
        states = {individual_key(where, who): state for where, who, state in connection.execute(individuals)}
        digests = set(connection.scalars(select(erased.c.digest)))
    assert world.settings.erasure_key is not None
    key_of_erased = ErasureKey(world.settings.erasure_key)
    for key, state in truth.states.items():
        if state == "erased" and key not in states and key_of_erased.digest(*key.split("/", 1)) in digests:
            states[key] = "erased"
    wrong = [(key, state, states.get(key)) for key, state in truth.states.items() if states.get(key) != state]
    return [
        *_differences("Postgres", pairs_in_postgres(world), truth, missing),
        *_listed("(key, state that it should have, state in Postgres)", wrong),
    ]


def _differences(where: str, found: dict[Pair, float], truth: Truth, missing: int) -> list[str]:
    held = {pair: distance for pair, distance in found.items() if truth.holds(pair)}
    absent = [pair for pair in truth.pairs if pair not in held]
    beyond = [pair for pair in held if pair not in truth.pairs]
    apart = [p for p, d in truth.pairs.items() if p in held and abs(held[p] - d) > _SAME]
    return [
        *_listed(f"pairs missing in {where}", absent, allowed=missing),
        *_listed(f"pairs beyond the threshold in {where}", beyond),
        *_listed(f"pairs with another distance in {where}", apart),
        *_listed(f"pairs of earlier revisions in {where}", found.keys() - held.keys()),
    ]


def _listed(what: str, them: Iterable[object], allowed: int = 0) -> list[str]:
    them = list(them)
    return [f"{len(them)} {what}: {', '.join(map(str, them[:_SHOWN]))}"] if len(them) > allowed else []


def _events(world: World, topic: Topic[Event]) -> list[tuple[int, Event]]:
    """Those that can be read, with their offsets; what cannot becomes a dead letter, and those are counted."""
    events = []
    for record in world.read(topic):
        with contextlib.suppress(UnreadableError):
            events.append((record.offset, decode(record).event))
    return events
