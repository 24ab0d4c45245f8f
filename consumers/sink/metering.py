"""The sink's Prometheus counters."""

from collections import Counter
from collections.abc import Sequence

from runtime.telemetry.metrics import SINCE_REGISTRATION_S, SINK_EVENTS
from schemas.envelope import Message, Source, ages_of
from schemas.events.base import Event
from schemas.events.pairs import IndividualChecked


def count_written(messages: Sequence[Message[Event]]) -> None:
    """Count events that were written, and observe the time from the registration to the written check.

    Checks that compaction or the sink published are left out: they are no answer to a registration.
    """
    for kind, count in Counter(type(message.event) for message in messages).items():
        SINK_EVENTS.labels(kind.__name__).inc(count)
    answers = (message for message in messages if message.source == Source.MATCHER)
    SINCE_REGISTRATION_S.observe("written", ages_of(answers, IndividualChecked))
