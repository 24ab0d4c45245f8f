"""Ids of spans: random, but of a trace that a producer begins those that its record names."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import SpanContext, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from schemas.envelope import Headers


class GivenIds(RandomIdGenerator):
    """For spans begun inside `given` in the only thread that does so; of others the ids are random."""

    def __init__(self) -> None:
        self._given: SpanContext | None = None

    @contextmanager
    def given(self, context: Headers) -> Iterator[None]:
        """The next span is the one that a record names as its parent."""
        carrier = {name: value.decode() for name, value in context if value is not None}
        parent = get_current_span(TraceContextTextMapPropagator().extract(carrier)).get_span_context()
        self._given = parent if parent.is_valid else None
        yield
        self._given = None

    def generate_trace_id(self) -> int:
        """See IdGenerator."""
        return super().generate_trace_id() if self._given is None else self._given.trace_id

    def generate_span_id(self) -> int:
        """See IdGenerator."""
        return super().generate_span_id() if self._given is None else self._given.span_id
