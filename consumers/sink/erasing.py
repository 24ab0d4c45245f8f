"""Erasures in Postgres: nothing of a person stays but a keyed hash, and no late event brings them back.

The rows that are deleted name the keys under which the compacted topics have records about the person: each gets a null
value, published before the transaction ends, so that none is forgotten. A late event about the person is not written,
and a null value is published behind it too.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import ColumnElement, and_, case, delete, exists, func, null, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection
from sqlalchemy.sql.schema import Table

from consumers.sink.batch import Events, Remaining
from schemas.envelope import Message, Source, as_erasure
from schemas.erased import Erased, Erasure, ErasureKey
from schemas.events.base import Event, IndividualEvent
from schemas.events.encodings import EncodingErased
from schemas.events.pairs import (
    DecisionErased,
    FindingErased,
    IndividualChecked,
    KeyErased,
    PairDecided,
    PairEvent,
    check_key,
)
from schemas.events.registrations import IndividualDeleted, IndividualErased
from schemas.shard import Shard
from schemas.tables import checks, column_groups, decisions, duplicates, erased, individuals, retractions

_LOCK = 0x6661_6365  # the advisory lock of Postgres that erasures take alone, and all other writers share
_COLUMN_GROUPS = column_groups()


def apply_erasures(connection: Connection, events: Events, key: ErasureKey, registry: Erased) -> Remaining:
    """Erase the individuals that a batch erases, and leave out events about everybody who is erased, now or earlier.

    Invariant: no transaction that writes about people runs beside one that erases: each sees what the other did.
    """
    messages = [message for message, _ in events]
    erasures = [
        as_erasure(message, timestamp) if isinstance(message.event, IndividualDeleted) else message
        for message, timestamp in events
        if isinstance(message.event, IndividualDeleted | EncodingErased | IndividualErased)
    ]
    lock = func.pg_advisory_xact_lock if erasures else func.pg_advisory_xact_lock_shared
    connection.execute(select(lock(_LOCK)))
    nulls: dict[tuple[type[Event], str], Message[Event]] = {}  # a finding and a decision may have one key
    if erasures:
        _register(connection, erasures, key)
        for message in erasures:
            if isinstance(message.event, IndividualEvent):
                nulls |= {(type(one.event), one.event.key): one for one in _erase(connection, message, message.event)}
    registered = _registered(connection, messages, key)
    kept: Events = []
    for message, timestamp in events:
        if registry.forbids(message) or registered.forbids(message):
            nulls |= {(type(one.event), one.event.key): one for one in _null_value(connection, message)}
        else:
            kept.append((message, timestamp))
    return Remaining(kept, list(nulls.values()))


def _register(connection: Connection, erasures: Iterable[Message[Event]], key: ErasureKey) -> None:
    rows: dict[str, dict[str, Any]] = {}
    for message in erasures:
        match message.event:
            case IndividualErased() as erasure:
                pass
            case IndividualEvent() as event:
                erasure = key.erasure_of(event.collection, event.individual_id, event.revision)
            case _:
                continue
        row = {
            "digest": erasure.digest,
            "collection": erasure.collection,
            "revision": erasure.revision,
            "erased_at": message.time,
        }
        before = rows.get(erasure.digest, row)
        rows[erasure.digest] = max(row, before, key=lambda one: (one["revision"], one["erased_at"]))
    statement = insert(erased)
    old, new = erased.c, statement.excluded
    statement = statement.on_conflict_do_update(
        index_elements=[old.digest],
        set_={"revision": new.revision, "erased_at": new.erased_at},
        where=tuple_(old.revision, old.erased_at) < tuple_(new.revision, new.erased_at),
    )
    connection.execute(statement, [rows[digest] for digest in sorted(rows)])


def _erase(connection: Connection, message: Message[Event], event: IndividualEvent) -> Iterator[Message[Event]]:
    """Delete everything about a person up to a revision from every table. Yields null values for the keys of it."""
    where = {"collection": event.collection, "individual_id": event.individual_id}
    keys = {event.key} if _empty_individual(connection, event) else set()
    gone = delete(checks).filter_by(**where).where(checks.c.revision <= event.revision).returning(checks.c.shards)
    for count in connection.scalars(gone):
        keys |= {check_key(event.key, Shard(number, count)) for number in range(1, count + 1)}
    for table in (duplicates, retractions):
        gone = delete(table).where(_is_up_to(table, event)).returning(table.c.pair_id)
        keys |= set(connection.scalars(gone))
    for one in sorted(keys):
        yield message.derive(FindingErased(collection=event.collection, erased_key=one), Source.SINK)
    decided = delete(decisions).where(_has_member(decisions, event), decisions.c.decided_at <= message.time)
    for one in sorted(set(connection.scalars(decided.returning(decisions.c.pair_id)))):
        yield message.derive(DecisionErased(collection=event.collection, erased_key=one), Source.SINK)


def _empty_individual(connection: Connection, event: IndividualEvent) -> bool:
    """Empty the column groups of an individual up to a revision. Returns whether the check was among them."""
    is_them = _is_row_of(event)
    before = connection.execute(select(individuals).where(is_them).with_for_update()).mappings().one_or_none()
    if before is None:
        return False
    emptied = [guard for guard in _COLUMN_GROUPS if (before[guard] or 0) <= event.revision]
    if len(emptied) == len(_COLUMN_GROUPS):
        connection.execute(delete(individuals).where(is_them))
    else:
        columns = [name for guard in emptied for name in _COLUMN_GROUPS[guard]]
        if columns:
            connection.execute(update(individuals).where(is_them).values(dict.fromkeys(columns, null())))
    return before["checked_revision"] is not None and "checked_revision" in emptied


def _has_member(table: Table, event: IndividualEvent) -> ColumnElement[bool]:
    one = or_(table.c.individual_a == event.individual_id, table.c.individual_b == event.individual_id)
    return and_(table.c.collection == event.collection, one)


def _is_up_to(table: Table, event: IndividualEvent) -> ColumnElement[bool]:
    """Whether a row is about a pair with the person, at a revision up to that of the event."""
    revision = case((table.c.individual_a == event.individual_id, table.c.revision_a), else_=table.c.revision_b)
    return and_(_has_member(table, event), revision <= event.revision)


def _registered(connection: Connection, messages: Iterable[Message[Event]], key: ErasureKey) -> Erased:
    """The erasures, as the table has them, of those that the messages are about."""
    digests = {key.digest(message.event.collection, who) for message in messages for who, _ in message.event.subjects()}
    query = select(erased.c.digest, erased.c.revision, erased.c.erased_at).where(erased.c.digest.in_(sorted(digests)))
    return Erased(key, {digest: Erasure(revision, time) for digest, revision, time in connection.execute(query)})


def _null_value(connection: Connection, message: Message[Event]) -> Iterator[Message[Event]]:
    """A null value for an event about somebody who is erased, unless the tables have something newer under its key."""
    event = message.event
    null_value: type[KeyErased] = FindingErased
    match event:
        case PairEvent():
            known = duplicates.c.pair_id == event.key
        case IndividualChecked():
            known = and_(_is_row_of(event), individuals.c.checked_revision.is_not(None))
        case PairDecided():
            null_value, known = DecisionErased, decisions.c.pair_id == event.key
        case _:
            return
    if not connection.scalar(select(exists().where(known))):
        yield message.derive(null_value(collection=event.collection, erased_key=event.key), Source.SINK)


def _is_row_of(event: IndividualEvent) -> ColumnElement[bool]:
    return and_(individuals.c.collection == event.collection, individuals.c.individual_id == event.individual_id)
