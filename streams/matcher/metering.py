"""What the matcher counts of its work, and what it says of what it holds when it is scraped."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from runtime.telemetry.metrics import (
    DEAD_LETTERS,
    DELTA_LIMIT,
    GALLERY_COMPACTED,
    GALLERY_DELTA,
    GALLERY_PEOPLE,
    GALLERY_RECALL,
    GALLERY_SEGMENTS,
    MATCHER_EVENTS,
    RECALL_FLOOR,
    SINCE_REGISTRATION_S,
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


def count_matched(said: Sequence[Message[Event]], letters: int) -> None:
    """Count what a batch led to, once Kafka has it, and how long that took since each registration."""
    for kind, count in Counter(type(message.event) for message in said).items():
        MATCHER_EVENTS.labels(kind.__name__).inc(count)
    SINCE_REGISTRATION_S.observe("matched", ages_of(said, IndividualChecked))
    if letters:
        _LETTERS.inc(letters)


def show_galleries(settings: Settings, vitals: Callable[[], Iterable[PartitionVitals]]) -> None:
    """Have what the matcher last said of its partitions scraped."""
    RECALL_FLOOR.set(settings.recall_floor)
    DELTA_LIMIT.set(settings.delta_limit)

    def say(gauge: CallbackGauge, value: Callable[[ScopeVitals], float | None]) -> None:
        def ask() -> Series:
            found = {
                (scope.collection, scope.encoder, one.shard): value(scope)
                for one in vitals()
                for scope in one.scopes
                if scope.people  # of an encoder that nobody uses any more nothing is said
            }
            return {labels: number for labels, number in found.items() if number is not None}

        gauge.ask = ask

    say(GALLERY_PEOPLE, lambda scope: scope.people)
    say(GALLERY_DELTA, lambda scope: scope.delta)
    say(GALLERY_SEGMENTS, lambda scope: len(scope.segments))
    say(GALLERY_RECALL, lambda scope: min((one.quality.recall for one in scope.segments), default=None))
    say(GALLERY_COMPACTED, lambda scope: scope.compacted_at.timestamp() if scope.compacted_at else 0)
