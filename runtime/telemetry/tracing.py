"""Where time goes between a producer and the rows, as spans: https://opentelemetry.io/docs/specs/otel/trace/api.

A record names its trace (`traceparent`, https://www.w3.org/TR/trace-context), and whatever follows from it carries that
on unchanged, so that what is derived twice is the same record: the span of every stage is a child of the producer's.
Spans leave by OTLP over HTTP where the standard variables say so; else the exporter is not even imported.
"""

import atexit
import hashlib
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from types import MappingProxyType
from typing import TypeVar

from schemas.envelope import Headers, Message
from schemas.events.base import Event, IndividualEvent
from schemas.events.pairs import PairEvent
from schemas.settings import Settings

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_FLUSHED_WITHIN_S = 2.0

E = TypeVar("E", bound=Event)
Attribute = str | int | float
_NONE: Mapping[str, Attribute] = MappingProxyType({})


def traced(message: Message[E]) -> Message[E]:
    """The message as the beginning of a trace, unless it belongs to one.

    The ids follow from the message's id: whoever publishes it again says the same.
    """
    if trace_id_of(message.context) is not None:
        return message
    digest = hashlib.blake2b(message.id.encode(), digest_size=24).hexdigest()
    parent = f"00-{digest[:32]}-{digest[32:]}-01"  # sampled: stages may leave out some, by the trace's id
    return replace(message, context=(*message.context, ("traceparent", parent.encode())))


def trace_id_of(context: Headers) -> str | None:
    """The trace that a record belongs to."""
    for name, value in context:
        if name == "traceparent" and (found := _PARENT.fullmatch(value or b"")):
            return found[1].decode()
    return None


def tracer_of(settings: Settings, service: str) -> "Tracer | None":
    """What exports a process's spans, None where no endpoint is set. OTEL_SERVICE_NAME goes before `service`."""
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return None
    return _tracer(settings.namespace, os.environ.get("OTEL_SERVICE_NAME") or f"facematch-{service}")


@cache
def _tracer(namespace: str, service: str) -> "Tracer":
    return Tracer(namespace, service)


class Tracer:
    """Hands spans to a thread that exports them; those that a collector does not take in time are dropped.

    The other standard variables (headers, certificates, sampler, batches) are the SDK's business.
    """

    def __init__(self, namespace: str, service: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        from runtime.telemetry.trace_ids import GivenIds

        self._ids = GivenIds()
        self._exporter = OTLPSpanExporter()
        resource = Resource.create({"service.name": service, "service.namespace": namespace})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False, id_generator=self._ids)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("facematch")
        atexit.register(self.close)

    def stage(
        self, name: str, message: Message[Event], begun: int, ended: int, more: Mapping[str, Attribute] = _NONE
    ) -> None:
        """The span of what a stage did with a message, in nanoseconds since 1970. Of no trace: none."""
        from opentelemetry.trace import SpanKind, get_current_span
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier = {name: value.decode() for name, value in message.context if value is not None}
        parent = TraceContextTextMapPropagator().extract(carrier)
        if not get_current_span(parent).get_span_context().is_valid:
            return
        attributes = {**_attributes(name, message.event), **more}
        span = self._tracer.start_span(name, parent, SpanKind.CONSUMER, attributes, start_time=begun)
        span.end(ended)

    def beginning(
        self, name: str, message: Message[Event], begun: int, ended: int, more: Mapping[str, Attribute] = _NONE
    ) -> None:
        """The span of who publishes a message: the first of its trace if `traced` began that. From one thread."""
        if message.context != traced(replace(message, context=())).context:
            self.stage(name, message, begun, ended, more)
            return
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind

        attributes = {**_attributes(name, message.event), **more}
        with self._ids.given(message.context):
            span = self._tracer.start_span(name, Context(), SpanKind.PRODUCER, attributes, start_time=begun)
        span.end(ended)

    def close(self) -> None:
        """Export what is left, unless that takes long. A process that ends does so by itself."""
        atexit.unregister(self.close)
        flush = threading.Thread(target=self._provider.force_flush, name="last spans", daemon=True)
        flush.start()
        flush.join(_FLUSHED_WITHIN_S)
        self._exporter.shutdown()  # type: ignore[no-untyped-call] # the SDK's


def _attributes(stage: str, event: Event) -> dict[str, Attribute]:
    attributes: dict[str, Attribute] = {
        "facematch.stage": stage,
        "facematch.event": type(event).__name__,
        "facematch.collection": event.collection,
    }
    if isinstance(event, IndividualEvent):
        attributes |= {"facematch.individual_id": event.individual_id, "facematch.revision": event.revision}
    elif isinstance(event, PairEvent):
        attributes["facematch.pair_id"] = event.pair_id
    return attributes
