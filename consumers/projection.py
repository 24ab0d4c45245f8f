"""Events → rows. Each statement is idempotent, and the rows come out the same in any order of the events."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Numeric, cast, func, literal_column, or_, tuple_
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.sql.dml import ReturningInsert

from schemas.envelope import Message
from schemas.events import (
    CompactionCertified,
    DuplicateFound,
    DuplicateRetracted,
    EncodingComputed,
    EncodingRejected,
    Event,
    IndividualChecked,
    IndividualEvent,
    PairDecided,
    PairEvent,
    Registration,
)
from schemas.tables import certificates, checks, decisions, duplicates, individuals, retractions

Row = Mapping[str, Any]
CHECKED = "checked_revision"
_COLUMN_GROUPS = (Registration, EncodingComputed, IndividualChecked, EncodingRejected)


@dataclass(frozen=True, slots=True)
class Rows:
    """What a batch of events writes: each list in the order of its primary key, each key once.

    The order keeps two sinks from waiting for each other's locks in a circle; one INSERT can update a row once.
    """

    individuals: dict[str, list[Row]]  # by the revision column that guards them
    checks: list[Row]
    duplicates: list[Row]
    retractions: list[Row]
    decisions: list[Row]
    certificates: list[Row]


def rows_of(events: Iterable[tuple[Message[Event], int]]) -> Rows:
    """The rows of messages with Kafka's timestamp in milliseconds. Of several with one key the latest is kept.

    Of erasures there are none here: see `consumers.erasing`.
    """
    by_guard: dict[str, dict[tuple[str, str], Row]] = defaultdict(dict)
    reports: dict[tuple[str, str, int, int], Row] = {}
    pairs: dict[str, Row] = {}
    retracted: dict[tuple[str, str], Row] = {}
    decided: dict[tuple[str, str], Row] = {}
    certified: dict[str, Row] = {}
    for message, timestamp in events:
        event, published = message.event, datetime.fromtimestamp(timestamp / 1000, UTC)
        if isinstance(event, PairEvent):
            pair = _pair_row(message, event)
            known = pairs.get(event.pair_id)
            if known is None or _pair_version(pair) > _pair_version(known):
                pairs[event.pair_id] = pair
            if isinstance(event, DuplicateRetracted):
                retracted[event.pair_id, message.id] = _retraction_row(message, event)
        elif isinstance(event, PairDecided):
            decided[event.key, message.id] = _decision_row(message, event)
        elif isinstance(event, CompactionCertified):
            certified[event.certificate_id] = _certificate_row(message, event)
        elif isinstance(event, IndividualChecked) and event.shards > 1:
            place = (event.collection, event.individual_id, event.revision, event.shards)
            reports[place] = _with_report(reports.get(place), event, published)
        elif isinstance(event, _COLUMN_GROUPS):
            guard, row = _individual_row(message, published)
            key = (row["collection"], row["individual_id"])
            before = by_guard[guard].get(key)
            if before is None or _individual_version(guard, row) > _individual_version(guard, before):
                by_guard[guard][key] = row
    return Rows(
        {guard: [row for _, row in sorted(rows.items())] for guard, rows in sorted(by_guard.items())},
        [row for _, row in sorted(reports.items())],
        [row for _, row in sorted(pairs.items())],
        [row for _, row in sorted(retracted.items())],
        [row for _, row in sorted(decided.items())],
        [row for _, row in sorted(certified.items())],
    )


def upsert_individuals(guard: str, columns: Iterable[str]) -> Insert:
    """Writes one column group of `individuals`, where the stored revision of that group is lower or absent.

    Of two checks of one revision, by different numbers of shards perhaps, the one that left out more stays.
    """
    statement = insert(individuals)
    old, new = individuals.c, statement.excluded
    lower: ColumnElement[bool] = old[guard] < new[guard]
    if guard == CHECKED:
        found = (func.coalesce(one.duplicates_found, -1) for one in (old, new))
        lower = tuple_(old[guard], next(found)) < tuple_(new[guard], next(found))
    return statement.on_conflict_do_update(
        index_elements=[old.collection, old.individual_id],
        set_={name: new[name] for name in columns if name not in ("collection", "individual_id")},
        where=or_(old[guard].is_(None), lower),
    )


def merge_checks() -> ReturningInsert[Any]:
    """Adds reports of shards to what others said of the same revision, and returns the rows as they then are.

    The row is locked meanwhile: of several sinks, the one that adds the last report sees all the others.
    """
    statement = insert(checks)
    old, new = checks.c, statement.excluded
    both = "unnest(checks.duplicates, excluded.duplicates) WITH ORDINALITY AS reports(one, other, shard)"
    return statement.on_conflict_do_update(
        index_elements=list(checks.primary_key.columns),
        set_={
            "duplicates": literal_column(f"(SELECT array_agg(greatest(one, other) ORDER BY shard) FROM {both})"),
            "truncated": or_(old.truncated, new.truncated),
            "checked_at": func.greatest(old.checked_at, new.checked_at),
        },
    ).returning(checks)


def completed(reports: Iterable[Row]) -> list[Row]:
    """Rows of `individuals`, guarded by CHECKED, of those rows of `checks` that no shard is missing from.

    Each individual once: the highest revision, and of several numbers of shards the one that left out more.
    """
    latest: dict[tuple[str, str], Row] = {}
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
        before = latest.get(key)
        if before is None or _individual_version(CHECKED, row) > _individual_version(CHECKED, before):
            latest[key] = row
    return [row for _, row in sorted(latest.items())]


def upsert_duplicates(columns: Iterable[str]) -> Insert:
    """Writes pairs, where what is stored was said of lower revisions, or earlier of the same."""
    statement = insert(duplicates)
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=[duplicates.c.pair_id],
        set_={name: new[name] for name in columns if name != "pair_id"},
        where=tuple_(_revisions(duplicates.c), duplicates.c.found_at) < tuple_(_revisions(new), new.found_at),
    )


def _revisions(pair: Any) -> ColumnElement[Any]:
    """Their sum, which a bigint may not hold."""
    return cast(pair.revision_a, Numeric) + cast(pair.revision_b, Numeric)


def add_retractions() -> Insert:
    """Writes retractions that are not there yet."""
    return insert(retractions).on_conflict_do_nothing()


def add_decisions() -> Insert:
    """Writes decisions that are not there yet."""
    return insert(decisions).on_conflict_do_nothing()


def add_certificates() -> Insert:
    """Writes certificates that are not there yet."""
    return insert(certificates).on_conflict_do_nothing()


def _individual_row(message: Message[Event], published: datetime) -> tuple[str, Row]:
    """The revision column that guards an event's column group, and the row."""
    event = message.event
    assert isinstance(event, IndividualEvent)
    columns: Row = {}
    match event:
        case Registration():
            guard = "registered_revision"
            photo = event.photo.uri or "inline"
            columns = {"photo": photo, "attributes": event.attributes, "registered_at": message.time}
        case EncodingComputed():
            guard = "encoded_revision"
            columns = {"encoder": event.encoder, "encoded_at": published}
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
        case _:
            raise TypeError(f"{type(event).__name__} has no columns in individuals")
    key = {"collection": event.collection, "individual_id": event.individual_id}
    return guard, {**key, guard: event.revision, **columns}


def _individual_version(guard: str, row: Row) -> tuple[int, int]:
    return row[guard], row.get("duplicates_found") or -1


def _with_report(row: Row | None, event: IndividualChecked, published: datetime) -> Row:
    """The row of `checks` with this report in it too; what one shard says twice counts once, the larger number."""
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


def _pair_columns(event: PairEvent) -> Row:
    """Those of `duplicates` and `retractions` alike."""
    assert isinstance(event, DuplicateFound | DuplicateRetracted)
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


def _pair_row(message: Message[Event], event: PairEvent) -> Row:
    retracted = event.reason.value if isinstance(event, DuplicateRetracted) else None
    return {**_pair_columns(event), "retracted": retracted, "found_at": message.time}


def _retraction_row(message: Message[Event], event: DuplicateRetracted) -> Row:
    own = {"event_id": message.id, "reason": event.reason.value, "retracted_at": message.time}
    return {**_pair_columns(event), **own}


def _decision_row(message: Message[Event], event: PairDecided) -> Row:
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


def _certificate_row(message: Message[Event], event: CompactionCertified) -> Row:
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


def _pair_version(row: Row) -> tuple[int, datetime]:
    return row["revision_a"] + row["revision_b"], row["found_at"]
