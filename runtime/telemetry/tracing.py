"""Spans of what each stage does with a message: https://opentelemetry.io/docs/specs/otel/trace/api.

A record names its trace (`traceparent`, https://www.w3.org/TR/trace-context). Records derived from it carry the same
header, so that deriving twice gives the same record: the spans of all stages are siblings under that parent. Where the
producer gave no trace, `traced` names one whose parent has no span: it is only a name.
Spans leave by OTLP over HTTP where the standard variables are set; else the exporter is not even imported.
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
from schemas.events.base import Event
from schemas.settings import Settings

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_FLUSHED_WITHIN_S = 2.0
LAST_SPANS = "last spans"  # the thread that exports what is left, which a deaf collector holds up

E = TypeVar("E", bound=Event)
Attribute = str | int | float
_NONE: Mapping[str, Attribute] = MappingProxyType({})


def traced(message: Message[E]) -> Message[E]:
    """The message with a trace of its own, unless it belongs to one.

    The trace's id is derived from the message's id: publishing it again gives the same record.
    """
    if trace_id_of(message.context) is not None:
        return message
    digest = hashlib.blake2b(message.id.encode(), digest_size=24).hexdigest()
    parent = f"00-{digest[:32]}-{digest[32:]}-01"  # sampled: stages may leave out some, by the trace's id
    return replace(message, context=(*message.context, ("traceparent", parent.encode())))


def trace_id_of(context: Headers) -> str | None:
    """The id of the trace that a record belongs to, 32 hexadecimal digits; None without a trace."""
    for name, value in context:
        if name == "traceparent" and (found := _PARENT.fullmatch(value or b"")):
            return found[1].decode()
    return None


def tracer_of(settings: Settings, service: str) -> "Tracer | None":
    """The exporter of a process's spans, None where no endpoint is set. OTEL_SERVICE_NAME overrides `service`."""
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return None
    return _tracer(settings.namespace, os.environ.get("OTEL_SERVICE_NAME") or f"facematch-{service}")


@cache
def _tracer(namespace: str, service: str) -> "Tracer":
    return Tracer(namespace, service)


class Tracer:
    """Hands spans to a thread that exports them. Spans that a collector does not take in time are dropped.

    The SDK reads the other standard variables (headers, certificates, sampler, batches). Thread-safe.
    """

    def __init__(self, namespace: str, service: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._exporter = OTLPSpanExporter()
        resource = Resource.create({"service.name": service, "service.namespace": namespace})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("facematch")
        atexit.register(self.close)

    def stage(
        self,
        name: str,
        message: Message[Event],
        begun: int,
        ended: int,
        more: Mapping[str, Attribute] = _NONE,
        *,
        is_producer: bool = False,
    ) -> None:
        """Export the span of a stage that took from `begun` to `ended`, in nanoseconds since 1970.

        Nothing is exported for a message without a trace.
        """
        from opentelemetry.trace import SpanKind, get_current_span
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier = {name: value.decode() for name, value in message.context if value is not None}
        parent = TraceContextTextMapPropagator().extract(carrier)
        if not get_current_span(parent).get_span_context().is_valid:
            return
        attributes = {**_attributes(name, message.event), **more}
        kind = SpanKind.PRODUCER if is_producer else SpanKind.CONSUMER
        span = self._tracer.start_span(name, parent, kind, attributes, start_time=begun)
        span.end(ended)

    def close(self) -> None:
        """Export the spans that are left, within 2 s. Called at the end of the process too."""
        atexit.unregister(self.close)
        flush = threading.Thread(target=self._provider.force_flush, name=LAST_SPANS, daemon=True)
        flush.start()
        flush.join(_FLUSHED_WITHIN_S)
        self._exporter.shutdown()  # type: ignore[no-untyped-call] # the SDK's


def _attributes(stage: str, event: Event) -> dict[str, Attribute]:
    attributes: dict[str, Attribute] = {
        "facematch.stage": stage,
        "facematch.event": type(event).__name__,
        "facematch.collection": event.collection,
    }
    match event.subjects():
        case [one] if one.revision is not None:
            attributes |= {"facematch.individual_id": one.individual_id, "facematch.revision": one.revision}
        case [_, _]:
            attributes["facematch.pair_id"] = event.key
    return attributes
