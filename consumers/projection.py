"""Events → rows. Each statement is idempotent, and the rows come out the same in any order of the events."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import or_, tuple_
from sqlalchemy.dialects.postgresql import Insert, insert

from schemas.envelope import Message
from schemas.events import (
    DuplicateFound,
    DuplicateRetracted,
    EncodingComputed,
    EncodingErased,
    EncodingRejected,
    Event,
    IndividualChecked,
    IndividualDeleted,
    IndividualEvent,
    PairEvent,
    Registration,
)
from schemas.tables import duplicates, individuals

Row = Mapping[str, Any]


def rows_of(events: Iterable[tuple[Message[Event], int]]) -> tuple[dict[str, list[Row]], list[Row]]:
    """Rows of `individuals` by the revision column that guards them, and rows of `duplicates`.

    `events` are messages with Kafka's timestamp in milliseconds. Of several rows with the same key only the one
    of the highest revision is kept: one INSERT can update a row once.
    """
    by_guard: dict[str, dict[tuple[str, str], Row]] = defaultdict(dict)
    pairs: dict[str, Row] = {}
    for message, timestamp in events:
        event = message.event
        if isinstance(event, PairEvent):
            pair = _pair_row(message, event)
            known = pairs.get(event.pair_id)
            if known is None or _pair_version(pair) > _pair_version(known):
                pairs[event.pair_id] = pair
            continue
        guard, row = _individual_row(message, datetime.fromtimestamp(timestamp / 1000, UTC))
        key = (row["collection"], row["individual_id"])
        before = by_guard[guard].get(key)
        if before is None or row[guard] > before[guard]:
            by_guard[guard][key] = row
    # In the order of the primary key, so that two sinks never wait for each other's locks in a circle.
    return (
        {guard: [row for _, row in sorted(rows.items())] for guard, rows in sorted(by_guard.items())},
        [row for _, row in sorted(pairs.items())],
    )


def upsert_individuals(guard: str, columns: Iterable[str]) -> Insert:
    """Writes one column group of `individuals`, where the stored revision of that group is lower or absent."""
    statement = insert(individuals)
    return statement.on_conflict_do_update(
        index_elements=[individuals.c.collection, individuals.c.individual_id],
        set_={name: statement.excluded[name] for name in columns if name not in ("collection", "individual_id")},
        where=or_(individuals.c[guard].is_(None), individuals.c[guard] < statement.excluded[guard]),
    )


def upsert_duplicates(columns: Iterable[str]) -> Insert:
    """Writes pairs, where what is stored was said of lower revisions, or earlier of the same."""
    statement = insert(duplicates)
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=[duplicates.c.pair_id],
        set_={name: new[name] for name in columns if name != "pair_id"},
        where=tuple_(duplicates.c.revision_a + duplicates.c.revision_b, duplicates.c.found_at)
        < tuple_(new.revision_a + new.revision_b, new.found_at),
    )


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
            guard = "checked_revision"
            columns = {"checked_at": published}
        case EncodingRejected():
            guard = "rejected_revision"
            columns = {
                "rejection_reason": event.reason.value,
                "rejection_detail": event.detail,
                "rejected_at": published,
            }
        case IndividualDeleted() | EncodingErased():
            guard = "erased_revision"
        case _:
            raise TypeError(f"{type(event).__name__} has no columns in individuals")
    key = {"collection": event.collection, "individual_id": event.individual_id}
    return guard, {**key, guard: event.revision, **columns}


def _pair_row(message: Message[Event], event: PairEvent) -> Row:
    found = event if isinstance(event, DuplicateFound) else None
    retracted = event.reason.value if isinstance(event, DuplicateRetracted) else None
    return {
        "pair_id": event.pair_id,
        "collection": event.collection,
        "encoder": event.encoder,
        "individual_a": event.a.individual_id,
        "individual_b": event.b.individual_id,
        "revision_a": event.a.revision,
        "revision_b": event.b.revision,
        "distance": found.distance if found else None,
        "threshold": found.threshold if found else None,
        "retracted": retracted,
        "found_at": message.time,
    }


def _pair_version(row: Row) -> tuple[int, datetime]:
    return row["revision_a"] + row["revision_b"], row["found_at"]
