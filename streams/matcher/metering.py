"""The matcher's metrics: counters of what it publishes, gauges of its galleries."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from runtime.telemetry.largest import Combine, largest_and_others, least_but_zero
from runtime.telemetry.metrics import (
    CANDIDATES,
    CANDIDATES_EXPECTED,
    CANDIDATES_NEWCOMERS,
    DEAD_LETTERS,
    DELTA_LIMIT,
    GALLERY_BEGUN,
    GALLERY_COMPACTED,
    GALLERY_DELTA,
    GALLERY_PEOPLE,
    GALLERY_RECALL,
    GALLERY_SEGMENTS,
    GALLERY_THRESHOLD,
    MATCHER_EVENTS,
    RECALL_FLOOR,
    SINCE_REGISTRATION_S,
    STRANGERS_EXPECTED,
    CallbackGauge,
    Series,
)
from schemas.envelope import Message, ages_of
from schemas.events.base import Event
from schemas.events.pairs import IndividualChecked
from schemas.settings import Settings
from schemas.topics import ENCODINGS
from streams.matcher.vitals import PartitionVitals, ScopeVitals

_LETTERS = DEAD_LETTERS.labels(ENCODINGS.name)


def count_matched(messages: Sequence[Message[Event]], letters: int) -> None:
    """Count what a batch led to, once Kafka has it: the messages by type, dead letters, seconds since registration."""
    for kind, count in Counter(type(message.event) for message in messages).items():
        MATCHER_EVENTS.labels(kind.__name__).inc(count)
    SINCE_REGISTRATION_S.observe("matched", ages_of(messages, IndividualChecked))
    if letters:
        _LETTERS.inc(letters)


def show_galleries(settings: Settings, vitals: Callable[[], Iterable[PartitionVitals]]) -> None:
    """Have the vitals that `vitals` returns scraped as gauges."""
    RECALL_FLOOR.set(settings.recall_floor)
    DELTA_LIMIT.set(settings.delta_limit)

    def show(gauge: CallbackGauge, value: Callable[[ScopeVitals], float | None], of_others: Combine) -> None:
        def series() -> Series:
            found = {
                (scope.collection, scope.encoder, partition.shard): scope
                for partition in vitals()
                for scope in partition.scopes
                if scope.people  # an encoder that nobody uses any more has no series
            }
            values = {labels: value(scope) for labels, scope in found.items()}
            known: Series = {labels: number for labels, number in values.items() if number is not None}
            sizes: Series = {labels: scope.people for labels, scope in found.items()}
            return largest_and_others(known, sizes, of_others)

        gauge.source = series

    show(GALLERY_PEOPLE, lambda scope: scope.people, sum)
    show(GALLERY_DELTA, lambda scope: scope.delta, max)
    show(GALLERY_SEGMENTS, lambda scope: len(scope.segments), sum)
    show(GALLERY_RECALL, lambda scope: min((one.quality.recall for one in scope.segments), default=None), min)
    show(GALLERY_THRESHOLD, lambda scope: scope.threshold, max)
    show(CANDIDATES, lambda scope: _each(scope.candidates, scope.newcomers), max)
    show(CANDIDATES_EXPECTED, lambda scope: _each(scope.expected, scope.newcomers), max)
    show(CANDIDATES_NEWCOMERS, lambda scope: scope.newcomers, max)
    show(STRANGERS_EXPECTED, lambda scope: scope.strangers, sum)
    show(GALLERY_BEGUN, _begun_and_not_compacted, least_but_zero)
    show(GALLERY_COMPACTED, lambda scope: scope.compacted_at.timestamp() if scope.compacted_at else 0, least_but_zero)


def _each(count: float, newcomers: float) -> float | None:
    return count / newcomers if newcomers else None


def _begun_and_not_compacted(scope: ScopeVitals) -> float:
    return scope.begun_at.timestamp() if scope.begun_at and not scope.compacted_at else 0
