"""What operations see of an individual, on real servers: its way, in the log and as a trace; nothing of its photo."""

import base64
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from deploy.local.stack import WORKERS
from producers.outbox.table import create_outbox
from schemas.envelope import Readable, Record, announce, encode
from schemas.events.encodings import EncodingComputed
from schemas.events.registrations import IndividualCreated, IndividualDeleted, Photo
from schemas.shard import Shard
from schemas.topics import DEAD_LETTERS, ENCODINGS, partition_of
from streams.compaction.bootstrap import open_compactor
from tests.collector import Collector, Span
from tests.integration.test_bad_input import no_face
from tests.integration.world import World
from tests.records import again

INSERT = text(
    "INSERT INTO facematch_outbox (type, event, traceparent)"
    " VALUES ('IndividualCreated', CAST(:event AS jsonb), :traceparent)"
)
PARTITION = partition_of("c", ENCODINGS.partitions)
GIVEN = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()
    yield found
    found.close()


def start(world: World) -> None:
    """Every kind of worker, saying all that it can."""
    create_outbox(world.settings)
    for name, arguments in WORKERS.items():
        world.workers[name] = world.stack.start_worker(name, "-v", *arguments, env=world.env)


def created(who: str, photo: bytes) -> IndividualCreated:
    inline = Photo(inline=base64.b64encode(photo).decode())
    return IndividualCreated(collection="c", individual_id=who, revision=1, photo=inline)


def insert(world: World, event: IndividualCreated, traceparent: str | None = None) -> None:
    with world.engine.begin() as connection:
        connection.execute(INSERT, {"event": event.model_dump_json(exclude_none=True), "traceparent": traceparent})


def broken(record: Readable, partition: int | None = None) -> Record:
    """The same with an event of a type that its topic does not carry: a dead letter, photo and all."""
    headers = [(name, b"DuplicateFound" if name == "ce_type" else value) for name, value in record.headers]
    return Record(record.topic, record.key, record.value, tuple(headers), partition=partition)


def secrets(photos: list[bytes], world: World) -> list[str]:
    """Photos and embeddings in every form that a line may take, in pieces."""
    vectors = [event.embedding for event in world.events(ENCODINGS) if isinstance(event, EncodingComputed)]
    data = photos + [vector.tobytes() for vector in vectors]
    texts = [form for each in data for form in (base64.b64encode(each).decode(), each.hex(), repr(each)[2:-1])]
    pieces = [one[begin : begin + 24] for one in texts for begin in range(0, min(len(one), 20_000) - 24, 24)]
    return pieces + [f"{number:.6f}" for vector in vectors for number in vector.tolist()]


def test_an_individual_is_seen_from_the_producer_to_the_row(
    world: World, photos: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}.items():
        monkeypatch.setenv(name, value)  # of the workers too
    start(world)
    pictures = [(photos / "obama.jpg").read_bytes(), (photos / "obama2.jpg").read_bytes(), no_face()]
    insert(world, created("a", pictures[0]))
    insert(world, created("faceless", pictures[2]), f"00-{GIVEN}-b7ad6b7169203331-01")
    world.wait(lambda: world.count("checked", "rejected") == 2, "the relay's are through")
    world.submit([("biden", (photos / "biden.jpg").as_uri())])
    own = announce(created("b", pictures[1]), "t")
    world.publish([own])
    world.wait(lambda: world.pairs() == {("a", "b")}, "the pair is found")
    pieces = secrets(pictures, world)
    computed = next(record for record in world.read(ENCODINGS) if record.key == b"c/b")
    world.publish_records([broken(encode(own)), broken(computed, computed.partition)])
    world.wait(lambda: len(world.read(DEAD_LETTERS)) == 2, "what cannot be read is a dead letter")
    world.publish([announce(IndividualDeleted(collection="c", individual_id="b", revision=2), "t")])
    world.wait(lambda: "b" not in world.states(), "b is erased")
    world.publish_records([encode(own), again(computed, computed.partition)])
    world.wait(lambda: "erased: not matched, tombstone put behind" in said(world), "b does not come back")
    world.wait(world.settled, "all is through")
    with open_compactor(world.settings, Shard(), PARTITION, 1, lambda *_: None) as compactor:
        (certificate,) = compactor.run()
    assert certificate.people == 2

    def spans(trace: Callable[[Span], bool]) -> set[tuple[str, str, Any]]:
        found = filter(trace, collector.spans)
        return {(span.name, span.service, span.attributes.get("facematch.outcome")) for span in found}

    def of(who: str) -> set[tuple[str, str, Any]]:
        traces = {one.trace_id for one in collector.spans if one.attributes.get("facematch.individual_id") == who}
        return spans(lambda span: span.trace_id in traces)

    matched = {("match", "facematch-matcher", None), ("write", "facematch-sink", None)}
    encoded = {("encode", "facematch-encoder-cpu", "encoded")}
    escalated = {("encode", "facematch-encoder-cpu", "escalated"), ("encode", "facematch-encoder-gpu", "rejected")}
    relay, written = ("relay", "facematch-outbox", None), ("write", "facematch-sink", None)
    world.wait(lambda: of("a") == {relay, *encoded, *matched}, f"the whole way of a: {of('a')}")
    world.wait(lambda: of("faceless") == {relay, *escalated, written}, f"that of faceless: {of('faceless')}")
    assert {span.parent_id for span in collector.spans if span.trace_id == GIVEN} == {"b7ad6b7169203331"}
    world.wait(lambda: of("biden") == {("submit", "facematch-submit", None), *encoded, *matched}, "that of biden")
    assert of("b") == set(), "who begins no trace has none"
    compact = {("compact", "facematch-compactor", None), written}
    world.wait(lambda: compact in [spans(_is_of(one.trace_id)) for one in collector.spans], "a certificate's way")
    for span in collector.spans:
        assert span.begun <= span.ended
        assert len({one.parent_id for one in collector.spans if one.trace_id == span.trace_id}) == 1

    # the log

    of_workers = [line for line in world.lines.since(world.begin) if line.partition(": ")[0] in world.workers]
    assert [line for line in of_workers if not line.partition(": ")[2].startswith("{")] == []
    everything = re.sub(r'"timestamp": "[^"]*"', "", "\n".join(of_workers))  # a second's fraction may be a number's
    assert [piece for piece in pieces if piece in everything] == []
    found = said(world)
    rejected = found["rejected"]
    assert (rejected["individual_id"], rejected["reason"], rejected["worker"]) == ("faceless", "no_face", "encoder-gpu")
    assert {"restored", "pool started", "published", "encoded", "escalated to the GPU pool", "dead letter"} <= set(
        found
    )
    assert {"IndividualChecked", "DuplicateFound", "DuplicateRetracted", "written"} <= set(found)
    for about_b in ("erased: not encoded", "erased from the tables", "erased: not matched, tombstone put behind"):
        assert (found[about_b]["collection"], found[about_b]["individual_id"]) == ("c", "b")
    letters = {(one["worker"], one["letter"].split("/")[0]) for one in world.said() if one["event"] == "dead letter"}
    assert letters == {("encoder-cpu", "individuals"), ("matcher", "encodings")}

    # and without a collector

    collector.close()
    world.submit([("late", (photos / "obama.jpg").as_uri())])
    world.wait(lambda: world.states().get("late") == ("checked", None), "workers go on without a collector")
    assert world.restarts() == {}


def said(world: World) -> dict[str, dict[str, Any]]:
    """The last line of each event."""
    return {line["event"]: line for line in world.said()}


def _is_of(trace_id: str) -> Callable[[Span], bool]:
    return lambda span: span.trace_id == trace_id
