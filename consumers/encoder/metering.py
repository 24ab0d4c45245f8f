"""What the encoder counts for whoever scrapes it."""

import json
import time
from collections.abc import Iterable
from datetime import datetime

from consumers.encoder.answers import ESCALATION_REASON
from runtime.telemetry.metrics import ANSWERS, DEAD_LETTERS, QUALITY, SINCE_REGISTRATION_S
from schemas.envelope import REPLAY_ID, Headers, Record
from schemas.events.encodings import RejectionReason
from schemas.topics import DEAD_LETTERS as DEAD_LETTERS_TOPIC
from schemas.topics import ENCODINGS, ESCALATIONS, REJECTIONS


class Answers:
    """Counts the answers of a pool that Kafka has."""

    def __init__(self, pool: str, source: str) -> None:
        """`source` is the topic that the pool reads."""
        self._pool = pool
        self._quality = {measure: histogram.labels(pool) for measure, histogram in QUALITY.items()}
        self._dead_letters = DEAD_LETTERS.labels(source)
        for reason in RejectionReason:  # what has never happened is 0, not unknown: then its first time is seen
            ANSWERS.labels(pool, "rejected", reason.value)

    def count(self, answers: Iterable[Record]) -> None:
        """Count answers, and of embeddings how good the face is, and how long it took."""
        for answer in answers:
            self._count(answer)

    def _count(self, answer: Record) -> None:
        outcome, reason = "", ""
        if answer.topic == ENCODINGS.name and answer.value is not None:
            outcome = "encoded"
            for measure, value in json.loads(answer.value)["quality"].items():
                self._quality[measure].observe(value)
            if not _header(answer.headers, REPLAY_ID):
                registered = datetime.fromisoformat(_header(answer.headers, "ce_time"))
                SINCE_REGISTRATION_S.observe("encoded", [time.time() - registered.timestamp()])
        elif answer.topic == ENCODINGS.name:
            outcome = "erased"
        elif answer.topic == REJECTIONS.name and answer.value is not None:
            outcome, reason = "rejected", json.loads(answer.value)["reason"]
        elif answer.topic == ESCALATIONS.name:
            outcome, reason = "escalated", _header(answer.headers, ESCALATION_REASON)
        elif answer.topic == DEAD_LETTERS_TOPIC.name:
            outcome = "dead_letter"
            self._dead_letters.inc()
        if outcome:
            ANSWERS.labels(self._pool, outcome, reason).inc()


def _header(headers: Headers, name: str) -> str:
    """The last header of that name; empty where there is none."""
    values = [value for key, value in headers if key == name and value is not None]
    return values[-1].decode() if values else ""
