"""What the encoder pools publish in one run: few people on few points, so that pairs, updates and erasures abound."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np

from schemas.envelope import Message, Record, encode
from schemas.events.base import Event
from schemas.events.encodings import EncodingErased
from schemas.thresholds import Thresholds
from tests.encodings import EncodingEvent, computed

THRESHOLD, _STEPS_TO_IT = 0.3, (0.21, 0.25)
_BEGIN = datetime(2026, 1, 31, tzinfo=UTC)
_PEOPLE = "abcdefghij"
_STEPS = (1,) * 6 + (2,) * 3 + (0,)  # to the next revision; 0 is a producer's mistake: two photos of one
# Points on a line, 0.2 apart: neighbours are pairs at the threshold, others are not.
_direction = np.random.default_rng(3).normal(size=128)
_POINTS = [(0.2 * (i + 1) * _direction / np.linalg.norm(_direction)).astype(np.float32) for i in range(8)]


class SteppingThresholds(Thresholds):
    """A threshold that moves with every few people, and takes no pair away: each step is between 0.2 and 0.4."""

    def of(self, collection: str, encoder: str, living: int) -> float | None:
        """See Thresholds."""
        return _STEPS_TO_IT[living % 2] if living <= 6 else THRESHOLD


def records(random: random.Random, count: int) -> list[Record]:
    """That many records of `encodings`: in the order of their revisions, but for some that are late or come twice."""
    revisions: dict[tuple[str, str], int] = {}
    placed: list[tuple[float, Record]] = []
    for number in range(count):
        collection, who = random.choice("cccd"), random.choice(_PEOPLE)
        revision = revisions[collection, who] = max(1, revisions.get((collection, who), 0) + random.choice(_STEPS))
        event: EncodingEvent
        if random.random() < 0.15:
            event = EncodingErased(collection=collection, individual_id=who, revision=revision)
        else:
            point, encoder = random.choice(_POINTS), random.choice("eeeeeef")
            event = computed(who, point, revision, collection, encoder)
        record = _record(event, number)
        late = random.randrange(1, 12) if random.random() < 0.1 else 0
        placed.append((number + late, record))
        if random.random() < 0.1:
            placed.append((number + random.randrange(1, 12), record))
    return [record for _, record in sorted(placed, key=lambda one: one[0])]


def _record(event: Event, number: int) -> Record:
    record = encode(Message(event, f"id-{number}", _BEGIN + timedelta(seconds=number), "test"))
    return replace(record, partition=0)
