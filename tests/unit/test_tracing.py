"""A trace begins with the producer, travels unchanged, and exporting its spans holds nobody up."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from runtime.telemetry import tracing
from runtime.telemetry.tracing import LAST_SPANS, Tracer, trace_id_of, traced, tracer_of
from schemas.envelope import Message, announce, decode, encode
from schemas.events.base import Event
from schemas.events.registrations import IndividualCreated, IndividualDeleted, Photo
from schemas.settings import Settings
from tests.collector import Collector

GIVEN = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
STATE = ("tracestate", b"vendor=1")


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()
    yield found
    found.close()


def created(who: str = "a") -> Message[Event]:
    photo = Photo(uri="file:///a.jpg")
    return announce(IndividualCreated(collection="c", individual_id=who, revision=3, photo=photo), "t")


def test_a_message_begins_the_same_trace_whenever_it_is_published() -> None:
    message = created()
    assert traced(message) == traced(message)
    assert trace_id_of(traced(message).context) != trace_id_of(traced(created()).context)
    assert decode(encode(traced(message))) == traced(message)


def test_a_trace_that_is_given_goes_on() -> None:
    event = created().event
    message = Message(event, "id", created().time, "t", (GIVEN, STATE))
    assert traced(message) == message
    assert trace_id_of(message.context) == "0af7651916cd43dd8448eb211c80319c"
    assert trace_id_of(message.derive(event, "t").context) == "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize("garbage", [b"", b"\xff", b"00-0-0-01", GIVEN[1] + b"\n", GIVEN[1].upper(), None])
def test_a_header_that_names_no_trace_is_none(garbage: bytes | None) -> None:
    assert trace_id_of((("traceparent", garbage),)) is None


def test_spans_of_a_trace_are_siblings(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    tracer, message = Tracer("n", "facematch-test"), traced(created())
    tracer.stage("submit", message, 1_000, 2_000, is_producer=True)
    tracer.stage("encode", message.derive(message.event, "t"), 3_000, 4_000, {"facematch.outcome": "encoded"})
    tracer.stage(
        "relay", Message(message.event, "id", message.time, "t", (GIVEN, STATE)), 1_000, 2_000, is_producer=True
    )
    tracer.stage("untraced", created(), 1_000, 2_000)
    tracer.stage("garbage", Message(message.event, "id", message.time, "t", (("traceparent", b"00-"),)), 1, 2)
    tracer.close()
    submit, encode_span, relay = collector.spans
    assert (submit.name, submit.trace_id) == ("submit", trace_id_of(message.context))
    assert (encode_span.trace_id, encode_span.parent_id) == (submit.trace_id, submit.parent_id)
    assert len({submit.span_id, encode_span.span_id, submit.parent_id}) == 3
    assert (relay.trace_id, relay.parent_id) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    assert (encode_span.service, encode_span.begun, encode_span.ended) == ("facematch-test", 3_000, 4_000)
    assert encode_span.attributes == {
        "facematch.stage": "encode",
        "facematch.event": "IndividualCreated",
        "facematch.collection": "c",
        "facematch.individual_id": "a",
        "facematch.revision": 3,
        "facematch.outcome": "encoded",
    }


def test_a_sampler_takes_a_trace_in_every_stage_or_in_none(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.3")
    for service, name in (("one", "submit"), ("two", "encode")):
        tracer = Tracer("n", service)
        for number in range(200):
            message = traced(Message(created().event, f"id-{number}", created().time, "t"))
            tracer.stage(name, message, 1, 2, is_producer=name == "submit")
        tracer.close()
    by_name = [{span.trace_id for span in collector.spans if span.name == name} for name in ("submit", "encode")]
    assert by_name[0] == by_name[1]
    assert 30 <= len(by_name[0]) <= 90


@pytest.mark.timeout(60)
def test_a_collector_that_is_away_or_deaf_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_FLUSHED_WITHIN_S", 0.1)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")
    message = traced(created())
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        for port in (deaf.getsockname()[1], 1):
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
            tracer = Tracer("n", "test")
            for _ in range(5_000):  # more than it keeps
                tracer.stage("encode", message, 1, 2)
            tracer.close()
    for thread in threading.enumerate():
        if thread.name == LAST_SPANS:  # what it logs now is this test's; later it would be printed behind the last one
            thread.join()


def test_without_an_endpoint_the_exporter_is_not_even_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    assert tracer_of(Settings(_env_file=None), "test") is None
    code = (
        "import sys; import consumers.sink.worker, streams.matcher.worker\n"
        "import producers.outbox.relay, producers.submit.publish\n"
        "from schemas.settings import Settings; from runtime.telemetry.tracing import tracer_of\n"
        "tracer_of(Settings(), 'test'); sys.exit(any('opentelemetry.exporter' in name for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0


def test_a_deletion_is_traced_too() -> None:
    message = traced(announce(IndividualDeleted(collection="c", individual_id="a", revision=4), "t"))
    assert trace_id_of(encode(message).headers) == trace_id_of(message.context)
