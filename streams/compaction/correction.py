"""Publishes what a compaction corrects: missing pairs and checks, retractions, and its certificate."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from uuid import UUID

import numpy as np

from runtime.servers.log import Span
from runtime.telemetry.tracing import traced
from schemas.envelope import Message, Record, Source, StoredRecord, UnreadableError, announce, decode, encode
from schemas.events.base import Member
from schemas.events.certificates import CompactionCertified
from schemas.events.pairs import (
    DuplicateFound,
    DuplicateRetracted,
    FindingErased,
    IndividualChecked,
    PairStatement,
    RetractionReason,
    Version,
    in_order,
)
from schemas.identity import uuid_of
from schemas.topics import DUPLICATES
from streams.compaction.audit import REASONS, Corrections, RequiredPairs
from streams.compaction.context import CompactionContext
from streams.compaction.input import CompactionInput
from streams.gallery.exact import VectorRows
from streams.gallery.id_table import hashes_of

Statement = PairStatement | IndividualChecked
_NAMESPACE = UUID("b3f1f1a6-8f1e-5a53-9b0e-2f6c0a7d4c55")
_AT_ONCE = 5_000  # messages: acknowledged together, about 3 MB
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_DAY = datetime(9999, 12, 31, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ScopeCorrections:
    """What follows from an audit of one encoder in one collection, and what it was an audit of."""

    collection: str
    encoder: str
    rows: VectorRows
    required: RequiredPairs
    corrections: Corrections
    threshold: float

    def member(self, row: int) -> Member:
        """The individual of a row, with its revision."""
        return Member(individual_id=self.rows.ids[row], revision=int(self.rows.revisions[row]))


class Correction:
    """Publishes to `duplicates` what follows from a compaction.

    `check` is called immediately before every record, and raises where another compaction may be under way.
    """

    def __init__(self, context: CompactionContext, read: CompactionInput, check: Callable[[], None]) -> None:
        self._publisher, self._tracer, self._duplicates = context.publisher, context.tracer, context.duplicates
        self._shard, self._limit = context.shard, context.settings.findings_limit
        self._partition, self._input, self._check = context.partition, read, check
        self._read_to = read.findings_end  # the offset of `duplicates` below which all is known
        self._now = datetime.now(UTC)
        self._ours: dict[bytes, tuple[str, Version]] = {}  # by key, the id and version of the record published

    def publish(self, scope: ScopeCorrections) -> None:
        """Publish corrections. Returns once all are acknowledged, and records that others published stand behind them.

        A pair is not published as found if a member changed since the log was read.
        """
        self._publish(self._retractions(scope.corrections))
        self._publish(self._found(scope))
        self._publish(self._checks(scope))
        if self._ours:
            end = self._duplicates.span(self._partition).end
            self._publisher.publish_all(self._hidden_by_ours(end), self._check)
            self._read_to = end
            self._ours.clear()

    def publish_certificate(self, certificate: CompactionCertified) -> None:
        """Publish a certificate, with a trace of its own."""
        message = traced(announce(certificate, Source.COMPACTION))
        self._publisher.publish_all([encode(message)], self._check)
        if self._tracer is not None:
            begun = int(certificate.began_at.timestamp() * 1e9)
            people = {"facematch.people": certificate.people}
            self._tracer.stage("compact", message, begun, time.time_ns(), people, is_producer=True)

    def _publish(self, messages: Iterator[Message[Statement]]) -> None:
        while batch := list(islice(messages, _AT_ONCE)):
            for message in batch:
                self._ours[message.event.key.encode()] = message.id, message.event.version(message.time)
            self._publisher.publish_all([encode(message) for message in batch], self._check)

    def _found(self, scope: ScopeCorrections) -> Iterator[Message[Statement]]:
        rows, corrections = scope.rows, scope.corrections
        for begin in range(0, len(corrections.found), _AT_ONCE):
            some = slice(begin, begin + _AT_ONCE)
            sides = np.stack(np.divmod(corrections.found[some], len(rows.ids)))  # (2, n)
            changed = self._input.changed(scope.collection)
            is_changed = [changed.find(hashes_of(rows.ids[row] for row in side.tolist())) >= 0 for side in sides]
            for at in np.flatnonzero(~np.logical_or(*is_changed)).tolist():
                a, b = in_order(*(scope.member(row) for row in sides[:, at].tolist()))
                distance, after = float(corrections.distances[some][at]), int(corrections.after[some][at])
                found = DuplicateFound(
                    collection=scope.collection,
                    encoder=scope.encoder,
                    a=a,
                    b=b,
                    distance=distance,
                    threshold=scope.threshold,
                )
                name = f"{found.key}/{a.revision}/{b.revision}/{distance}/{after}"
                yield self._message(found, name, _EPOCH + timedelta(microseconds=after))

    def _retractions(self, corrections: Corrections) -> Iterator[Message[Statement]]:
        """Retractions of published findings, which are read again: the statements in memory have no ids."""
        reasons = dict(zip(corrections.retracted.tolist(), corrections.reasons.tolist(), strict=True))
        if not reasons:
            return
        for batch in self._duplicates.read({self._partition: Span(min(reasons), max(reasons) + 1)}):
            for record in batch:
                if record.offset in reasons:
                    message = decode(record, DUPLICATES)
                    if isinstance(message.event, DuplicateFound):
                        retracted = _retracted(message.event, REASONS[reasons[record.offset]])
                        yield self._message(retracted, f"{retracted.key}/{message.id}", message.time)

    def _checks(self, scope: ScopeCorrections) -> Iterator[Message[Statement]]:
        for row in scope.corrections.unchecked.tolist():
            total, member = int(scope.required.totals[row]), scope.member(row)
            checked = IndividualChecked(
                collection=scope.collection,
                individual_id=member.individual_id,
                revision=member.revision,
                encoder=scope.encoder,
                duplicates=total,
                truncated=total > self._limit,
                shard=self._shard.number,
                shards=self._shard.count,
            )
            yield self._message(checked, f"{checked.key}/{checked.revision}", _EPOCH)

    def _message(self, event: Statement, name: str, after: datetime) -> Message[Statement]:
        """A message with a time after `after`. Its id follows from `name`: published twice, it is the same."""
        event_id = uuid_of(_NAMESPACE, f"{type(event).__name__}/{name}")
        later = min(after, _LAST_DAY) + timedelta(microseconds=1)
        return Message(event, event_id, max(self._now, later), Source.COMPACTION)

    def _hidden_by_ours(self, end: int) -> list[Record]:
        """Records that others published for our keys while we worked, of a higher version and before ours.

        Kafka's compaction would keep ours, the last of its key, so these go behind it again. `end`: the offset of
        `duplicates` below which all of ours stand.
        """
        best: dict[bytes, tuple[Version, StoredRecord]] = {}
        hidden: dict[bytes, StoredRecord] = {}
        for batch in self._duplicates.read({self._partition: Span(self._read_to, end)}):
            for record in batch:
                if record.key not in self._ours:
                    continue
                try:
                    message = decode(record, DUPLICATES)
                except UnreadableError:
                    continue
                event = message.event
                if isinstance(event, FindingErased):
                    continue  # somebody was erased meanwhile: the sink publishes a null value behind ours
                our_id, our_version = self._ours[record.key]
                version = event.version(message.time)
                if message.id == our_id:
                    if record.key in best:
                        hidden[record.key] = best[record.key][1]
                elif version > best.get(record.key, (our_version, record))[0]:
                    best[record.key] = version, record
                    hidden.pop(record.key, None)
        return [
            Record(record.topic, record.key, record.value, record.headers, partition=self._partition)
            for record in hidden.values()
        ]


def _retracted(found: DuplicateFound, reason: RetractionReason) -> DuplicateRetracted:
    return DuplicateRetracted(
        collection=found.collection,
        encoder=found.encoder,
        a=found.a,
        b=found.b,
        reason=reason,
        distance=found.distance,
        threshold=found.threshold,
    )
