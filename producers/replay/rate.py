"""How fast events were processed lately: how long a replay will take, before it begins."""

from collections.abc import Iterable
from contextlib import closing

from runtime.servers.log import Span, TopicLog
from schemas.events.base import Event
from schemas.settings import Settings
from schemas.topics import DUPLICATES, ENCODINGS, REJECTIONS, Topic

WINDOW_S = 10
_LOOK_BACK = 2000  # records of each partition
_ANSWERS = {
    "individuals": ((ENCODINGS, b"EncodingComputed"), (REJECTIONS, b"EncodingRejected")),
    "encodings": ((DUPLICATES, b"IndividualChecked"),),
}


def recent_rate(settings: Settings, topic: str) -> float | None:
    """Answers a second to the events of a topic, in the busiest ten seconds lately; None if there were none."""
    times = (time for answers, kind in _ANSWERS[topic] for time in _times(settings, answers, kind))
    return busiest(times, WINDOW_S)


def busiest(times: Iterable[int], window_s: float) -> float | None:
    """Of times in milliseconds the most within a window, per second of it; None of no times."""
    ordered = sorted(times)
    most = first = 0
    for last, time in enumerate(ordered):
        while time - ordered[first] >= window_s * 1000:
            first += 1
        most = max(most, last - first + 1)
    return most / window_s if most else None


def _times(settings: Settings, topic: Topic[Event], kind: bytes) -> Iterable[int]:
    with closing(TopicLog(settings, topic)) as log:
        spans = {
            partition: Span(max(span.begin, span.end - _LOOK_BACK), span.end) for partition, span in log.spans().items()
        }
        for batch in log.read(spans):
            yield from (record.timestamp for record in batch if dict(record.headers).get("ce_type") == kind)
