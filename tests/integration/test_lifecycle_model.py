"""The matcher's core and the sink, whatever happens to registrations and processes, against a model of thirty lines."""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from sqlalchemy import delete, select

from consumers.sink.postgres import PostgresTables
from deploy.status.workers import lags
from schemas.envelope import Message, Record, StoredRecord, decode, encode
from schemas.erased import Erased, ErasureKey
from schemas.events.base import Event
from schemas.events.encodings import EncodingComputed, EncodingErased
from schemas.events.pairs import DuplicateFound, IndividualChecked, PairDecided, PairEvent
from schemas.events.registrations import IndividualCreated, IndividualDeleted, IndividualUpdated, Photo
from schemas.tables import deployment, duplicates, erased, individual_duplicates, metadata, retractions
from schemas.topics import DECISIONS, DUPLICATES, ENCODINGS, ERASURES, INDIVIDUALS, MATCHER, SINK, topic_named
from streams.matching.match import restore
from tests.encodings import computed
from tests.integration.conftest import MakeWorld
from tests.integration.test_compaction import compacted
from tests.integration.world import ERASURE_KEY, World
from tests.records import again, stored
from tests.unit.test_gallery import THRESHOLD, Holder
from tests.unit.test_match import POINTS

KEY = ErasureKey(ERASURE_KEY)
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
PHOTO = Photo(uri="file:///nowhere/a.jpg")
WHO, WHERE, POINT = st.sampled_from("abcd"), st.sampled_from("cd"), st.sampled_from([0, 0, 1, 7])
Person = tuple[str, str]  # collection, individual


@dataclass
class Model:
    """What must hold: the highest revision of each person counts, and of each pair of people the latest decision."""

    people: dict[Person, tuple[int, int | None]] = field(default_factory=dict)  # revision; where the face is, or erased
    erased: dict[Person, int] = field(default_factory=dict)
    decided: dict[tuple[str, str, str], tuple[datetime, str]] = field(default_factory=dict)

    def register(self, person: Person, revision: int, point: int) -> None:
        self.people[person] = max(self.people.get(person, (0, None)), (revision, point), key=lambda known: known[0])

    def erase(self, person: Person, revision: int, time: datetime) -> None:
        self.erased[person] = max(revision, self.erased.get(person, 0))
        self.people[person] = max(self.people.get(person, (0, None)), (revision, None), key=lambda known: known[0])
        for pair, (decided_at, _) in list(self.decided.items()):
            if pair[0] == person[0] and person[1] in pair[1:] and decided_at <= time:
                del self.decided[pair]

    def pairs(self) -> set[tuple[str, str, int, str, int]]:
        living = [(*person, *known) for person, known in self.people.items() if known[1] is not None]
        return {
            (where, a, revision, b, other)
            for where, a, revision, face in living
            for elsewhere, b, other, second in living
            if where == elsewhere and a < b and face is not None and second is not None and abs(face - second) <= 1
        }

    def shown(self) -> dict[Person, set[str]]:
        shown: dict[Person, set[str]] = {one: set() for one, (_, point) in self.people.items() if point is not None}
        for where, a, _, b, _ in self.pairs():
            if self.decided.get((where, a, b), (NOON, "same"))[1] == "same":
                shown[where, a].add(b)
                shown[where, b].add(a)
        return shown


class Lifecycle(RuleBasedStateMachine):
    """Topics are lists in memory; what the sink writes is in Postgres."""

    world: World

    @initialize()
    def begin(self) -> None:
        self.model, self.holder = Model(), Holder(limit=100)
        # What each process knows of the registry: all that there is when it starts, the rest later.
        self.encoder_knows, self.matcher_knows, self.sink_knows = (Erased(KEY) for _ in range(3))
        self.topics: dict[str, list[StoredRecord]] = {
            topic.name: [] for topic in (INDIVIDUALS, ENCODINGS, DUPLICATES, DECISIONS, ERASURES)
        }
        self.waiting: list[Message[Event]] = []  # encodings that a slow pool has not published yet
        self.ever: list[Message[Event]] = []
        self.matched, self.revision, self.seconds = 0, 0, 0
        self.read = dict.fromkeys(self.topics, 0)
        with self.world.engine.begin() as connection:
            for table in metadata.sorted_tables:
                if table is not deployment:
                    connection.execute(delete(table))

    # what registration systems and reviewers say

    @rule(where=WHERE, who=WHO, point=POINT)
    def register(self, where: str, who: str, point: int) -> None:
        kind = IndividualUpdated if (where, who) in self.model.people else IndividualCreated
        message = self.say(kind(collection=where, individual_id=who, revision=self.next(), photo=PHOTO))
        self.model.register((where, who), self.revision, point)
        self.send_to_encoder(message, computed(who, POINTS[point], self.revision, where))

    @rule(where=WHERE, who=WHO, point=POINT)
    def move(self, where: str, who: str, point: int) -> None:
        there = "d" if where == "c" else "c"
        event = IndividualUpdated(
            collection=there, individual_id=who, revision=self.next(), photo=PHOTO, moved_from=where
        )
        message = self.say(event)
        self.model.register((there, who), self.revision, point)
        self.send_to_encoder(message, computed(who, POINTS[point], self.revision, there))
        self.end(message, where, who)

    @rule(where=WHERE, who=WHO)
    def erase(self, where: str, who: str) -> None:
        event = IndividualDeleted(collection=where, individual_id=who, revision=self.next())
        self.end(self.say(event), where, who)

    @rule(where=WHERE, pair=st.sets(WHO, min_size=2, max_size=2), verdict=st.sampled_from(["same", "different"]))
    def decide(self, where: str, pair: set[str], verdict: str) -> None:
        a, b = sorted(pair)
        said = {"collection": where, "encoder": "test", "a": a, "b": b, "verdict": verdict, "by": "x"}
        message = self.say(PairDecided.model_validate(said))
        self.model.decided[where, a, b] = message.time, verdict

    def next(self) -> int:
        self.revision += 1
        return self.revision

    def say(self, event: Event) -> Message[Event]:
        self.seconds += 1
        message = Message(event, f"id-{self.seconds}", NOON + timedelta(seconds=self.seconds), "test")
        self.append(encode(message))
        return message

    def send_to_encoder(self, message: Message[Event], encoding: EncodingComputed) -> None:
        self.waiting.append(message.derive(encoding, "encoder"))
        self.ever.append(self.waiting[-1])

    def end(self, message: Message[Event], where: str, who: str) -> None:
        """What the CPU pool makes of an erasure."""
        self.model.erase((where, who), self.revision, message.time)
        registered = message.derive(KEY.erasure_of(where, who, self.revision), "encoder")
        self.encoder_knows.add(registered)
        tombstone = EncodingErased(collection=where, individual_id=who, revision=self.revision)
        for one in (registered, message.derive(tombstone, "encoder")):
            self.append(encode(one))

    def append(self, record: Record) -> None:
        log = self.topics[record.topic]
        offset = 0 if not log else log[-1].offset + 1
        log.append(stored(record, offset))

    def append_all(self, records: list[Record]) -> None:
        for record in records:
            self.append(record)

    # what processes do

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def encode_one(self, data: st.DataObject) -> None:
        message = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        if not self.encoder_knows.forbids(message):
            self.append(encode(message))

    @rule(count=st.integers(1, 9))
    def match(self, count: int) -> None:
        batch = [record for record in self.topics[ENCODINGS.name] if record.offset >= self.matched][:count]
        self.holder.match(batch, self.matcher_knows, NOON + timedelta(days=1, seconds=self.seconds))
        for record in self.holder.published.publish:
            self.append(record)
        for offset in self.holder.published.renew:
            self.append(again(self.holder.log[offset]))
        self.holder.published.publish, self.holder.published.renew = [], []
        if batch:
            self.matched = batch[-1].offset + 1
            self.seconds += 1

    @rule(topic=st.sampled_from([INDIVIDUALS, ENCODINGS, DUPLICATES, DECISIONS, ERASURES]), count=st.integers(1, 20))
    def sink(self, topic: object, count: int) -> None:
        name = topic.name  # type: ignore[attr-defined]
        batch = [record for record in self.topics[name] if record.offset >= self.read[name]][:count]
        events = [(decode(record), 0) for record in batch]
        PostgresTables(self.world.engine, KEY, self.sink_knows).write(events, self.append_all)
        if batch:
            self.read[name] = batch[-1].offset + 1

    @rule(step=st.sampled_from(["begin_to_seal", "adopt", "compact", "take_over", "put_away", "tidy", "pack"]))
    def hold_otherwise(self, step: str) -> None:
        getattr(self.holder, step)()

    # what goes wrong

    @rule(data=st.data())
    def kill_the_matcher(self, data: st.DataObject) -> None:
        """It comes back with what was matched up to some moment, and its Redis is empty."""
        self.matched = data.draw(st.integers(0, self.matched))
        self.holder = Holder(limit=100, log=self.holder.log, offset=self.matched)
        log = [record for record in self.topics[ENCODINGS.name] if record.offset < self.matched]
        self.matcher_knows = self.registry()
        restore(self.holder.gallery, log, self.matcher_knows)

    @rule(data=st.data())
    def kill_the_sink(self, data: st.DataObject) -> None:
        for name, position in self.read.items():
            self.read[name] = data.draw(st.integers(0, position))
        self.sink_knows = self.registry()

    @rule()
    def lose_postgres(self) -> None:
        """It is filled again from what Kafka has."""
        with self.world.engine.begin() as connection:
            for table in metadata.sorted_tables:
                if table is not deployment:
                    connection.execute(delete(table))
        self.read = dict.fromkeys(self.topics, 0)
        self.sink_knows = self.registry()

    def registry(self) -> Erased:
        known = Erased(KEY)
        for record in self.topics[ERASURES.name]:
            known.add(decode(record, ERASURES))
        return known

    @precondition(lambda self: self.ever)
    @rule(data=st.data())
    def encode_again(self, data: st.DataObject) -> None:
        """A dead letter is sent again, or a process that slept for weeks goes on."""
        self.append(encode(data.draw(st.sampled_from(self.ever))))

    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        """Some of what was ever said on a topic is said again; registrations are encoded again."""
        log = self.topics[data.draw(st.sampled_from([INDIVIDUALS.name, ENCODINGS.name, DECISIONS.name]))]
        begin = data.draw(st.integers(0, len(log)))
        for record in log[begin : begin + 5]:
            if record.value is not None:
                self.append(again(record))

    @rule()
    def let_kafka_compact(self) -> None:
        """Long after: everything is read, only the last record of each key is left, and no null value."""
        self.drain()
        for name in (ENCODINGS.name, DUPLICATES.name, DECISIONS.name):
            last = {record.key: record for record in self.topics[name]}
            kept = [record for record in last.values() if record.value is not None]
            end = self.topics[name][-1:]  # offsets go on from there
            self.topics[name] = sorted({id(one): one for one in [*kept, *end]}.values(), key=lambda one: one.offset)

    def drain(self) -> None:
        """Everything that is under way arrives."""
        while self.waiting:
            message = self.waiting.pop()
            if not self.encoder_knows.forbids(message):
                self.append(encode(message))
        before = None
        while before != (before := [len(log) for log in self.topics.values()]):
            self.match(1000)
            for topic in (INDIVIDUALS, ENCODINGS, DUPLICATES, DECISIONS, ERASURES):
                self.sink(topic, 1000)

    def teardown(self) -> None:
        if not hasattr(self, "model"):
            return
        self.drain()
        expected = self.model.pairs()
        with self.world.connect() as connection:
            columns = duplicates.c
            sides = (columns.individual_a, columns.revision_a, columns.individual_b, columns.revision_b)
            rows = connection.execute(select(columns.collection, *sides).where(columns.retracted.is_(None)))
            assert {tuple(row) for row in rows} == expected
            view = individual_duplicates.c
            shown = {
                (where, who): set(others)
                for where, who, others in connection.execute(
                    select(view.collection, view.individual_id, view.duplicates)
                )
            }
            assert shown == self.model.shown()
            assert dict(connection.execute(select(erased.c.digest, erased.c.revision)).all()) == {
                KEY.digest(*person): revision for person, revision in self.model.erased.items()
            }
        last: dict[bytes | None, Event] = {}
        for record in self.topics[DUPLICATES.name]:
            last[record.key] = decode(record).event
        found = [event for event in last.values() if isinstance(event, DuplicateFound)]
        assert {
            (one.collection, one.a.individual_id, one.a.revision, one.b.individual_id, one.b.revision) for one in found
        } == expected
        checked = {one.key: one.revision for one in last.values() if isinstance(one, IndividualChecked)}
        living = {"/".join(one): revision for one, (revision, face) in self.model.people.items() if face is not None}
        assert living.items() <= checked.items()
        self.assert_forgotten()

    def assert_forgotten(self) -> None:
        """Neither what Kafka will keep nor the tables say anything of a person up to the revision that was erased."""
        erased_now = self.registry()
        with self.world.connect() as connection:
            for row in connection.execute(select(retractions)):
                for who, revision in ((row.individual_a, row.revision_a), (row.individual_b, row.revision_b)):
                    assert self.model.erased.get((row.collection, who), 0) < revision
        for name in (ENCODINGS.name, DUPLICATES.name):
            last = {record.key: record for record in self.topics[name]}
            for record in last.values():
                message = decode(record)
                if isinstance(message.event, EncodingComputed | PairEvent):
                    assert not erased_now.forbids(message), message.event


_PHASES = [Phase.explicit, Phase.reuse, Phase.generate]  # making an example smaller takes longer than finding one


class OnServers(Lifecycle):
    """The same with a real matcher and a real sink, and chance in the place of hypothesis."""

    def __init__(self, world: World, seed: int) -> None:
        super().__init__()
        self.world, self.random = world, random.Random(seed)
        self.to_send: list[Record] = []
        self.sent: list[Record] = []
        self.begin()

    def append(self, record: Record) -> None:
        self.to_send.append(record)

    def send(self) -> None:
        self.world.publish_records(self.to_send)
        self.sent += self.to_send
        self.to_send = []

    def happen(self) -> None:
        """One thing that registration systems, reviewers or slow encoders do."""
        where, who, point = (self.random.choice(some) for some in ("cd", "abcdefgh", (0, 0, 1, 7)))
        match self.random.choice(("register", "register", "move", "erase", "decide", "encode", "encode", "again")):
            case "register":
                self.register(where, who, point)
            case "move":
                self.move(where, who, point)
            case "erase":
                self.erase(where, who)
            case "decide":
                self.decide(where, set(self.random.sample("abcdefgh", 2)), self.random.choice(("same", "different")))
            case "encode" if self.waiting:
                self.append(encode(self.waiting.pop(self.random.randrange(len(self.waiting)))))
            case "again" if self.sent:
                self.append(self.random.choice(self.sent))

    def drain(self) -> None:
        for message in self.waiting:
            self.append(encode(message))
        self.send()
        self.world.wait(self.is_processed, "all is matched and written")
        self.topics = {name: self.world.read(topic_named(name)) for name in self.topics}

    def is_processed(self) -> bool:
        """By the matcher and the sink; this class is the encoder."""
        behind = {lag.group: lag.records for lag in lags(self.world.settings)}
        return behind[MATCHER.name] == behind[SINK.name] == 0


def test_what_holds_is_what_the_model_says_on_real_servers(make_world: MakeWorld) -> None:
    """Killed, replayed and compacted in the middle."""
    world = make_world(delta_limit=100, threshold=THRESHOLD)
    world.start("match", "sink")
    lifecycle = OnServers(world, seed=11)
    for number in range(240):
        lifecycle.happen()
        if number % 20 == 0:
            lifecycle.send()
        if number == 80:
            compacted(world)
        if number == 140:
            world.crash("match", "sink")
    lifecycle.teardown()


def run(world: World, examples: int, steps: int) -> None:
    class Here(Lifecycle):
        pass

    Here.world = world
    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, print_blob=True, phases=_PHASES
        ),
    )


def test_what_holds_is_what_the_model_says(world: World) -> None:
    run(world, 50, 60)


@pytest.mark.faults
def test_what_holds_is_what_the_model_says_of_many_more(world: World) -> None:
    run(world, 600, 80)
