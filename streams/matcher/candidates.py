"""How many candidates the last newcomers had, beside how many were expected: a people served badly shows there."""

from collections.abc import Iterable
from dataclasses import dataclass

from schemas.envelope import Message
from schemas.events.base import Event
from schemas.events.pairs import IndividualChecked
from schemas.thresholds import Thresholds
from streams.gallery.gallery import Gallery

_MOST = 1000  # newcomers: then all counts are halved, so that the last ones weigh most


@dataclass(slots=True)
class CandidateCounts:
    """The candidates of so many newcomers, and how many there should have been at most: of one shard, its share."""

    newcomers: float = 0
    candidates: float = 0
    expected: float = 0


class CandidateWatch:
    """Counts the candidates of newcomers, by collection and encoder. What a process has counted ends with it."""

    def __init__(self, thresholds: Thresholds) -> None:
        self._thresholds = thresholds
        self._counts: dict[tuple[str, str], CandidateCounts] = {}

    def count(self, messages: Iterable[Message[Event]], gallery: Gallery) -> None:
        """Count what a batch led to; the gallery has applied it."""
        for event in (message.event for message in messages):
            if not isinstance(event, IndividualChecked):
                continue
            counts = self._counts.setdefault((event.collection, event.encoder), CandidateCounts())
            living = gallery.collections[event.collection].living
            counts.newcomers += 1
            counts.candidates += event.duplicates
            counts.expected += self._thresholds.expected(event.collection, event.encoder, living) / event.shards
            if counts.newcomers >= _MOST:
                counts.newcomers, counts.candidates, counts.expected = (
                    counts.newcomers / 2,
                    counts.candidates / 2,
                    counts.expected / 2,
                )

    def of(self, collection: str, encoder: str) -> CandidateCounts:
        """What was counted of an encoder in a collection."""
        return self._counts.get((collection, encoder), CandidateCounts())
