"""Records of the sink that stand behind newer ones: those are published again, as the tables have them.

A null value may land behind newer records of its key: somebody who was erased may be registered anew, and found, before
the sink comes to the erasure. Kafka would keep the null value alone. What the sink publishes again because of that may
land behind newer records too. The sink reads both, and puts right behind them what counts: the last record of each key
says what the tables have, once the sink has read it.
"""

from collections.abc import Iterator

from sqlalchemy import ColumnElement, Numeric, and_, exists, func, literal, or_, select, tuple_
from sqlalchemy.engine import Connection
from sqlalchemy.sql.schema import Table

from schemas.envelope import Message, Source, has_event
from schemas.events.base import Event, Member, individual_of
from schemas.events.pairs import (
    DecisionErased,
    DuplicateFound,
    FindingErased,
    IndividualChecked,
    KeyErased,
    PairDecided,
    is_pair_id,
    parse_check_key,
)
from schemas.shard import Shard
from schemas.tables import checks, decisions, duplicates, individuals, pair_version


def published_behind(connection: Connection, message: Message[Event]) -> Iterator[Message[Event]]:
    """What must stand behind a message that the tables have: of null values, and of what the sink had published again.

    Where nothing holds any more, a null value stands behind the latter.
    """
    event = message.event
    if has_event(message, KeyErased):
        yield from _restore_after_null(connection, message)
    elif message.source == Source.SINK and _is_overtaken(connection, message):
        erased = DecisionErased if isinstance(event, PairDecided) else FindingErased
        null = message.derive(erased(collection=event.collection, erased_key=event.key), Source.SINK)
        restored = list(_restore_after_null(connection, null))
        yield from restored or [null]


def _is_overtaken(connection: Connection, message: Message[Event]) -> bool:
    """Whether the tables have something newer under the key of a finding, a check or a decision, or that it ended."""
    match message.event:
        case DuplicateFound() as found:
            version = found.version(message.time)
            of_both = tuple_(literal(version.revisions, Numeric), literal(version.time))
            is_newer = or_(pair_version(duplicates.c) > of_both, duplicates.c.retracted.is_not(None))
            newer = and_(duplicates.c.pair_id == found.key, is_newer)
        case IndividualChecked(shards=1) as checked:
            newer = and_(_is_row_of(individuals, checked), individuals.c.checked_revision > checked.revision)
        case IndividualChecked() as checked:
            is_reported = and_(checks.c.shards == checked.shards, checks.c.duplicates[checked.shard].is_not(None))
            newer = and_(_is_row_of(checks, checked), is_reported, checks.c.revision > checked.revision)
        case PairDecided() as decided:
            newer = and_(decisions.c.pair_id == decided.key, decisions.c.decided_at > message.time)
        case _:
            return False
    return bool(connection.scalar(select(exists().where(newer))))


def _is_row_of(table: Table, event: IndividualChecked) -> ColumnElement[bool]:
    return and_(table.c.collection == event.collection, table.c.individual_id == event.individual_id)


def _restore_after_null(connection: Connection, message: Message[KeyErased]) -> Iterator[Message[Event]]:
    """What the tables have under the key of a null value: the pair that holds, the check, or the latest decision.

    Nothing where the key is none of those: anybody may write null values.
    """
    event = message.event
    if is_pair_id(event.erased_key):
        if isinstance(event, DecisionErased):
            yield from _decision(connection, event)
        elif isinstance(event, FindingErased):
            yield from _finding(connection, message, event)
    elif isinstance(event, FindingErased) and (check := parse_check_key(event.erased_key)):
        shard, key = check
        yield from _check(connection, message, shard, individual_of(key)[1])


def _decision(connection: Connection, event: DecisionErased) -> Iterator[Message[Event]]:
    latest = select(decisions).where(decisions.c.pair_id == event.erased_key)
    latest = latest.order_by(decisions.c.decided_at.desc(), decisions.c.event_id.desc()).limit(1)
    for row in connection.execute(latest):
        decided = PairDecided(
            collection=row.collection,
            encoder=row.encoder,
            a=row.individual_a,
            b=row.individual_b,
            verdict=row.verdict,
            by=row.decided_by,
            note=row.note,
        )
        yield Message(decided, row.event_id, row.decided_at, Source.SINK)


def _finding(connection: Connection, message: Message[Event], event: FindingErased) -> Iterator[Message[Event]]:
    holding = and_(duplicates.c.pair_id == event.erased_key, duplicates.c.retracted.is_(None))
    for row in connection.execute(select(duplicates).where(holding)):
        found = DuplicateFound(
            collection=row.collection,
            encoder=row.encoder,
            a=Member(individual_id=row.individual_a, revision=row.revision_a),
            b=Member(individual_id=row.individual_b, revision=row.revision_b),
            distance=row.distance,
            threshold=row.threshold,
        )
        yield Message(found, message.derive(found, Source.SINK).id, row.found_at, Source.SINK)


def _check(connection: Connection, message: Message[Event], shard: Shard, who: str) -> Iterator[Message[Event]]:
    """The check of an individual, with as many duplicates as there are now, or as that shard found.

    Individuals without an encoder are left to compaction.
    """
    where = message.event.collection
    is_them = and_(individuals.c.collection == where, individuals.c.individual_id == who)
    person = connection.execute(select(individuals).where(is_them, individuals.c.encoder.is_not(None))).one_or_none()
    if person is None:
        return
    if shard.count == 1:
        has_them = or_(duplicates.c.individual_a == who, duplicates.c.individual_b == who)
        now = select(func.count()).where(duplicates.c.collection == where, has_them, duplicates.c.retracted.is_(None))
        query = select(
            individuals.c.checked_revision.label("revision"),
            func.coalesce(individuals.c.duplicates_found, now.scalar_subquery()).label("found"),
            individuals.c.duplicates_found.is_not(None).label("truncated"),
        ).where(is_them, individuals.c.encoded_revision == individuals.c.checked_revision)
    else:
        found = checks.c.duplicates[shard.number]
        query = (
            select(checks.c.revision, found.label("found"), checks.c.truncated)
            .where(checks.c.collection == where, checks.c.individual_id == who, checks.c.shards == shard.count)
            .where(found.is_not(None))
            .order_by(checks.c.revision.desc())
            .limit(1)
        )
    for row in connection.execute(query):
        checked = IndividualChecked(
            collection=where,
            individual_id=who,
            revision=row.revision,
            encoder=person.encoder,
            duplicates=row.found,
            truncated=row.truncated,
            shard=shard.number,
            shards=shard.count,
        )
        yield message.derive(checked, Source.SINK)
