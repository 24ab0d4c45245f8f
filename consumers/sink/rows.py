"""Events as rows of the tables. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from schemas.envelope import Message, kafka_time
from schemas.events.base import Event
from schemas.events.certificates import CompactionCertified
from schemas.events.encodings import EncodingComputed, EncodingErased, EncodingRejected
from schemas.events.pairs import DuplicateRetracted, IndividualChecked, KeyErased, PairDecided, PairStatement, Version
from schemas.events.registrations import IndividualDeleted, IndividualErased, Registration

TableRow = Mapping[str, Any]
REGISTERED, CHECKED = "registered_revision", "checked_revision"


@dataclass(frozen=True, slots=True)
class TableRows:
    """What a batch of events writes: each list in the order of its primary key, each key once.

    The order keeps two sinks from waiting for each other's locks in a circle; one INSERT can update a row once.
    """

    individuals: dict[str, list[TableRow]]  # by the revision column that guards them
    checks: list[TableRow]
    duplicates: list[TableRow]
    retractions: list[TableRow]
    decisions: list[TableRow]
    certificates: list[TableRow]


def rows_of(events: Iterable[tuple[Message[Event], int]]) -> TableRows:
    """The rows of messages in the order of the log, with Kafka's timestamps in milliseconds. Each key has one row.

    Of erasures there are none here: see `consumers.sink.erasing`.
    """
    by_guard: dict[str, dict[tuple[str, str], TableRow]] = defaultdict(dict)
    reports: dict[tuple[str, str, int, int], TableRow] = {}
    pairs: dict[str, tuple[Version, TableRow]] = {}
    retracted: dict[tuple[str, str], TableRow] = {}
    decided: dict[tuple[str, str], TableRow] = {}
    certified: dict[str, TableRow] = {}
    for message, timestamp in events:
        event, published = message.event, kafka_time(timestamp)
        if isinstance(event, PairStatement):
            version = event.version(message.time)
            if event.pair_id not in pairs or version > pairs[event.pair_id][0]:
                pairs[event.pair_id] = version, _pair_row(message, event)
            if isinstance(event, DuplicateRetracted):
                retracted[event.pair_id, message.id] = _retraction_row(message, event)
        elif isinstance(event, PairDecided):
            decided[event.key, message.id] = _decision_row(message, event)
        elif isinstance(event, CompactionCertified):
            certified[event.certificate_id] = _certificate_row(message, event)
        elif isinstance(event, IndividualChecked) and event.shards > 1:
            place = (event.collection, event.individual_id, event.revision, event.shards)
            reports[place] = _with_report(reports.get(place), event, published)
        elif (guarded := _individual_row(message, published)) is not None:
            guard, row = guarded
            key = (row["collection"], row["individual_id"])
            by_guard[guard][key] = latest_row(guard, by_guard[guard].get(key), row)
    return TableRows(
        {guard: [row for _, row in sorted(rows.items())] for guard, rows in sorted(by_guard.items())},
        [row for _, row in sorted(reports.items())],
        [row for _, (_, row) in sorted(pairs.items())],
        [row for _, row in sorted(retracted.items())],
        [row for _, row in sorted(decided.items())],
        [row for _, row in sorted(certified.items())],
    )


def completed(reports: Iterable[TableRow]) -> list[TableRow]:
    """Rows of `individuals`, guarded by CHECKED, of those rows of `checks` that no shard is missing from.

    Each individual once: the highest revision, and of several numbers of shards the one that left out more.
    """
    latest: dict[tuple[str, str], TableRow] = {}
    for report in reports:
        if None in report["duplicates"]:
            continue
        key = (report["collection"], report["individual_id"])
        row = {
            "collection": report["collection"],
            "individual_id": report["individual_id"],
            CHECKED: report["revision"],
            "duplicates_found": sum(report["duplicates"]) if report["truncated"] else None,
            "checked_at": report["checked_at"],
        }
        latest[key] = latest_row(CHECKED, latest.get(key), row)
    return [row for _, row in sorted(latest.items())]


def latest_row(guard: str, before: TableRow | None, row: TableRow) -> TableRow:
    """Of two rows of a column group the one that counts: of the higher revision, of equal ones `row`, the later.

    Of two checks of one revision (by different numbers of shards, say) the one that found more than it published. A
    registration is marked where its revision came before with another content.
    """
    if before is None or before.get(guard) is None:
        return row
    if _individual_version(guard, row) < _individual_version(guard, before):
        return before
    if guard == REGISTERED and row[guard] == before[guard]:
        differs = None not in (before["content"], row["content"]) and before["content"] != row["content"]
        return {**row, "conflicting": True if before["conflicting"] or differs else row["conflicting"]}
    return row


def _individual_row(message: Message[Event], published: datetime) -> tuple[str, TableRow] | None:
    """The revision column that guards an event's column group, and the row; None of an event that has no such group."""
    event = message.event
    columns: TableRow
    match event:
        case Registration():
            guard = REGISTERED
            columns = {
                "photo": event.photo.uri or "inline",
                "attributes": event.attributes,
                "registered_at": message.time,
                "content": event.content,
                "conflicting": None,
            }
        case EncodingComputed():
            guard = "encoded_revision"
            columns = {
                "encoder": event.encoder,
                "encoded_at": published,
                "detector": event.detector.value,
                "face": event.face.model_dump(),
                "quality": event.quality.model_dump(),
            }
        case IndividualChecked():
            guard = CHECKED
            # How many stood before depends on the order of arrival: kept only where pairs were left out.
            columns = {"duplicates_found": event.duplicates if event.truncated else None, "checked_at": published}
        case EncodingRejected():
            guard = "rejected_revision"
            columns = {
                "rejection_reason": event.reason.value,
                "rejection_detail": event.detail,
                "rejected_at": published,
            }
        case IndividualDeleted() | EncodingErased() | IndividualErased() | KeyErased():
            return None  # what they ask for is done by `apply_erasures`
        case _:
            raise TypeError(f"no rows are defined for a {type(event).__name__}")
    key = {"collection": event.collection, "individual_id": event.individual_id}
    return guard, {**key, guard: event.revision, **columns}


def _individual_version(guard: str, row: TableRow) -> tuple[int, int]:
    found = row.get("duplicates_found") if guard == CHECKED else None
    return row[guard], -1 if found is None else found


def _with_report(row: TableRow | None, event: IndividualChecked, published: datetime) -> TableRow:
    """The row of `checks` with this report in it too; what one shard reports twice counts once, the larger number."""
    found: list[int | None] = [None] * event.shards if row is None else list(row["duplicates"])
    found[event.shard - 1] = max(found[event.shard - 1] or 0, event.duplicates)
    return {
        "collection": event.collection,
        "individual_id": event.individual_id,
        "revision": event.revision,
        "shards": event.shards,
        "duplicates": found,
        "truncated": event.truncated or (row is not None and row["truncated"]),
        "checked_at": published if row is None else max(published, row["checked_at"]),
    }


def _pair_columns(event: PairStatement) -> TableRow:
    """Those of `duplicates` and `retractions` alike."""
    return {
        "pair_id": event.pair_id,
        "collection": event.collection,
        "encoder": event.encoder,
        "individual_a": event.a.individual_id,
        "individual_b": event.b.individual_id,
        "revision_a": event.a.revision,
        "revision_b": event.b.revision,
        "distance": event.distance,
        "threshold": event.threshold,
    }


def _pair_row(message: Message[Event], event: PairStatement) -> TableRow:
    retracted = event.reason.value if isinstance(event, DuplicateRetracted) else None
    return {**_pair_columns(event), "retracted": retracted, "found_at": message.time}


def _retraction_row(message: Message[Event], event: DuplicateRetracted) -> TableRow:
    own = {"event_id": message.id, "reason": event.reason.value, "retracted_at": message.time}
    return {**_pair_columns(event), **own}


def _decision_row(message: Message[Event], event: PairDecided) -> TableRow:
    return {
        "pair_id": event.key,
        "event_id": message.id,
        "collection": event.collection,
        "encoder": event.encoder,
        "individual_a": event.a,
        "individual_b": event.b,
        "verdict": event.verdict,
        "decided_by": event.by,
        "note": event.note,
        "decided_at": message.time,
    }


def _certificate_row(message: Message[Event], event: CompactionCertified) -> TableRow:
    return {
        "certificate_id": event.certificate_id,
        "collection": event.collection,
        "encoder": event.encoder,
        "people": event.people,
        "recall": None if event.recall is None else event.recall.recall,
        "pairs_kept": event.pairs.kept,
        "pairs_found": event.pairs.found,
        "pairs_retracted": event.pairs.retracted,
        "in_service": event.in_service,
        "certified_at": message.time,
        "certificate": event.model_dump(mode="json", exclude_none=True),
    }
