"""Metrics of the encoder's answers."""

import time
from collections.abc import Iterable

from consumers.encoder.answers import Answer, Outcome
from runtime.telemetry.metrics import ANSWERS, DEAD_LETTERS, QUALITY, SINCE_REGISTRATION_S
from schemas.events.encodings import EncodingComputed, RejectionReason


class AnswerCounter:
    """Counts the answers of a pool that Kafka has acknowledged."""

    def __init__(self, pool: str, source: str) -> None:
        """`source` is the topic that the pool reads."""
        self._pool = pool
        self._quality = {measure: histogram.labels(pool) for measure, histogram in QUALITY.items()}
        self._dead_letters = DEAD_LETTERS.labels(source)
        for reason in RejectionReason:  # what has never happened is 0, not unknown: then its first time is seen
            ANSWERS.labels(pool, Outcome.REJECTED, reason.value)

    def count(self, answers: Iterable[Answer]) -> None:
        """Count answers, and of embeddings how good the face is, and how long it took."""
        for answer in answers:
            if answer.outcome is Outcome.ERASURE_NOTED:
                continue  # beside the tombstone, which is counted
            reason = "" if answer.outcome is Outcome.DEAD_LETTER else answer.reason
            ANSWERS.labels(self._pool, answer.outcome, reason).inc()
            if answer.outcome is Outcome.DEAD_LETTER:
                self._dead_letters.inc()
            if answer.message is not None and isinstance(answer.message.event, EncodingComputed):
                for measure, histogram in self._quality.items():
                    histogram.observe(getattr(answer.message.event.quality, measure))
                if not answer.message.is_replayed:
                    SINCE_REGISTRATION_S.observe("encoded", [time.time() - answer.message.time.timestamp()])
