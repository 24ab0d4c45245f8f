"""What the sink counts for whoever scrapes it."""

from collections import Counter
from collections.abc import Sequence

from runtime.telemetry.metrics import SINCE_REGISTRATION_S, SINK_EVENTS
from schemas.envelope import MATCHER_SOURCE, Message, ages_of
from schemas.events.base import Event
from schemas.events.pairs import IndividualChecked


def count_written(messages: Sequence[Message[Event]]) -> None:
    """Count events that are in Postgres by now, and how long it took until each who was compared is there.

    Not of checks that compaction made up for, or the sink said again: those are no answer to a registration.
    """
    for kind, count in Counter(type(message.event) for message in messages).items():
        SINK_EVENTS.labels(kind.__name__).inc(count)
    answers = (message for message in messages if message.source == MATCHER_SOURCE)
    SINCE_REGISTRATION_S.observe("written", ages_of(answers, IndividualChecked))
