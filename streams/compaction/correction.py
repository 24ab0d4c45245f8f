"""What a compaction says: pairs and checks that were missed, pairs that no longer hold, and its certificate."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from uuid import UUID

import numpy as np

from runtime.servers.publisher import Publisher
from runtime.telemetry.tracing import traced, tracer_of
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
from schemas.settings import Settings
from schemas.shard import Shard
from schemas.topics import DUPLICATES
from streams.checkpoint.lease import SURE_FOR_S
from streams.compaction.audit import REASONS, Difference, RequiredPairs
from streams.compaction.sources import Sources
from streams.gallery.exact import VectorRows
from streams.gallery.id_table import hashes_of

Statement = PairStatement | IndividualChecked
_NAMESPACE = UUID("b3f1f1a6-8f1e-5a53-9b0e-2f6c0a7d4c55")
_AT_ONCE = 5_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_DAY = datetime(9999, 12, 31, tzinfo=UTC)


class Correction:
    """Publishes to `duplicates` what a compaction has to say that read these sources.

    `check` is called immediately before every record, and raises where another compaction may be under way.
    """

    def __init__(
        self,
        settings: Settings,
        shard: Shard,
        partition: int,
        sources: Sources,
        check: Callable[[], None],
    ) -> None:
        # What is still under way when the lease may be another's is given up, and asked for again: `check`.
        self._publisher = Publisher(settings, "compactor", give_up_after_s=SURE_FOR_S)
        self._tracer = tracer_of(settings, "compactor")
        self._shard, self._limit = shard, settings.findings_limit
        self._partition, self._sources, self._check = partition, sources, check
        self._duplicates, self._said = sources.duplicates, sources.said
        self._now = datetime.now(UTC)
        self._ours: dict[bytes, tuple[str, Version]] = {}  # by key the id and version of what is published

    def publish(
        self,
        collection: str,
        encoder: str,
        rows: VectorRows,
        due: RequiredPairs,
        judged: Difference,
        threshold: float,
    ) -> None:
        """Publish a difference; returns once all of it is acknowledged, and hides nothing that others said since.

        Of whoever changed until then nothing is said to be found.
        """
        self._publish(self._retractions(judged))
        self._publish(self._found(collection, encoder, rows, judged, threshold))
        self._publish(self._checks(collection, encoder, rows, due, judged))
        if self._ours:
            end = self._duplicates.end(self._partition)
            self._publisher.publish_all(self._hidden(end), self._check)
            self._said = end
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

    def _found(
        self,
        collection: str,
        encoder: str,
        rows: VectorRows,
        judged: Difference,
        threshold: float,
    ) -> Iterator[Message[Statement]]:
        for begin in range(0, len(judged.found), _AT_ONCE):
            some = slice(begin, begin + _AT_ONCE)
            sides = np.stack(np.divmod(judged.found[some], len(rows.ids)))  # (2, n)
            changed = self._sources.changed(collection)
            touched = np.stack([changed.find(hashes_of(rows.ids[row] for row in side.tolist())) >= 0 for side in sides])
            for at in np.flatnonzero(~touched.any(axis=0)).tolist():
                one, other = (
                    Member(individual_id=rows.ids[row], revision=int(rows.revisions[row]))
                    for row in sides[:, at].tolist()
                )
                a, b = in_order(one, other)
                distance, after = float(judged.distances[some][at]), int(judged.after[some][at])
                found = DuplicateFound(
                    collection=collection, encoder=encoder, a=a, b=b, distance=distance, threshold=threshold
                )
                name = f"{found.key}/{a.revision}/{b.revision}/{distance}/{after}"
                yield self._message(found, name, _EPOCH + timedelta(microseconds=after))

    def _retractions(self, judged: Difference) -> Iterator[Message[Statement]]:
        """Of findings where they stand; read again, since what is known of them in memory has no ids."""
        reasons = dict(zip(judged.retracted.tolist(), judged.reasons.tolist(), strict=True))
        if not reasons:
            return
        for batch in self._duplicates.read(self._partition, min(reasons), max(reasons) + 1):
            for record in batch:
                if record.offset in reasons:
                    message = decode(record, DUPLICATES)
                    if isinstance(message.event, DuplicateFound):
                        retracted = _retracted(message.event, REASONS[reasons[record.offset]])
                        yield self._message(retracted, f"{retracted.key}/{message.id}", message.time)

    def _checks(
        self, collection: str, encoder: str, rows: VectorRows, due: RequiredPairs, judged: Difference
    ) -> Iterator[Message[Statement]]:
        for row in judged.unchecked.tolist():
            checked = IndividualChecked(
                collection=collection,
                individual_id=rows.ids[row],
                revision=int(rows.revisions[row]),
                encoder=encoder,
                duplicates=int(due.totals[row]),
                truncated=bool(due.totals[row] > self._limit),
                shard=self._shard.number,
                shards=self._shard.count,
            )
            yield self._message(checked, f"{checked.key}/{checked.revision}", _EPOCH)

    def _message(self, event: Statement, name: str, after: datetime) -> Message[Statement]:
        """Later than what was said before, whatever clock that was said by; the same id if it is said again."""
        event_id = uuid_of(_NAMESPACE, f"{type(event).__name__}/{name}")
        later = min(after, _LAST_DAY) + timedelta(microseconds=1)
        return Message(event, event_id, max(self._now, later), Source.COMPACTION)

    def _hidden(self, end: int) -> list[Record]:
        """What others said of the same pairs up to `end`, of a higher version, and stands before what was said here.

        Kafka's compaction keeps the last record of a pair: that is to be the right one.
        """
        best: dict[bytes, tuple[Version, StoredRecord]] = {}
        hidden: dict[bytes, StoredRecord] = {}
        for batch in self._duplicates.read(self._partition, self._said, end):
            for record in batch:
                if record.key not in self._ours:
                    continue
                try:
                    message = decode(record, DUPLICATES)
                except UnreadableError:
                    continue
                event = message.event
                if isinstance(event, FindingErased):
                    continue  # of somebody who was erased meanwhile: the sink puts another behind what is said here
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
