"""Null values that hide newer events: those are published again, as the tables have them.

A null value may land behind newer records of its key: somebody who was erased may be registered anew, and found, before
the sink comes to the erasure. Kafka would keep the null value alone.
"""

from collections.abc import Iterator

from sqlalchemy import and_, func, or_, select
from sqlalchemy.engine import Connection

from schemas.envelope import Message, Source
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
from schemas.tables import checks, decisions, duplicates, individuals


def restore_after_null(connection: Connection, message: Message[KeyErased]) -> Iterator[Message[Event]]:
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
