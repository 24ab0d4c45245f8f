"""The current pairs, read from the tables."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import and_, cast, exists, func, select, text, true, tuple_
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.engine import Connection

from schemas.tables import decisions, duplicates, individuals


@dataclass(frozen=True, slots=True)
class CurrentPair:
    """A current duplicate, with the photos of both individuals."""

    pair_id: str
    collection: str
    individual_a: str
    individual_b: str
    distance: float
    photo_a: str | None
    photo_b: str | None
    recorded_at: datetime
    verdict: str | None = None
    decided_by: str | None = None


# Of two people the last decision counts, whichever photos and encoders their pair was found by. The view pair_verdicts
# says the same, but sorts all decisions there are: too much for a page of pairs.
_ABOUT_THEM = and_(
    *(duplicates.c[name] == decisions.c[name] for name in ("collection", "individual_a", "individual_b"))
)
_IS_DECIDED = exists().where(_ABOUT_THEM)


@dataclass(frozen=True, slots=True)
class PairSelection:
    """Which of the pairs that hold: of one collection, recorded at `since` or later.

    Pairs on which a reviewer has decided are left out unless `decided`. At most `limit` pairs, from the one that
    follows the pair `after`, be that decided or retracted since; none follows an id that is unknown.
    """

    collection: str | None = None
    since: datetime | None = None
    decided: bool = False
    after: str | None = None
    limit: int | None = None


ALL_UNDECIDED = PairSelection()


def current_pairs(connection: Connection, which: PairSelection = ALL_UNDECIDED) -> list[CurrentPair]:
    """Pairs that hold, in the order in which they were recorded."""
    a, b = individuals.alias("a"), individuals.alias("b")
    last = (
        select(decisions.c.verdict, decisions.c.decided_by)
        .where(_ABOUT_THEM)
        .order_by(decisions.c.decided_at.desc(), decisions.c.event_id.desc())
        .limit(1)
        .lateral("last")
    )
    query = (
        select(
            duplicates.c.pair_id,
            duplicates.c.collection,
            duplicates.c.individual_a,
            duplicates.c.individual_b,
            duplicates.c.distance,
            a.c.photo.label("photo_a"),
            b.c.photo.label("photo_b"),
            duplicates.c.recorded_at,
        )
        .outerjoin(a, and_(a.c.collection == duplicates.c.collection, a.c.individual_id == duplicates.c.individual_a))
        .outerjoin(b, and_(b.c.collection == duplicates.c.collection, b.c.individual_id == duplicates.c.individual_b))
        .where(duplicates.c.retracted.is_(None))
        .order_by(duplicates.c.recorded_at, duplicates.c.pair_id)
        .limit(which.limit)
    )
    if which.decided:
        query = query.add_columns(last.c.verdict, last.c.decided_by).outerjoin(last, true())
    else:
        query = query.where(~_IS_DECIDED)
    if which.collection is not None:
        query = query.where(duplicates.c.collection == which.collection)
    if which.since is not None:
        query = query.where(duplicates.c.recorded_at >= which.since)
    if which.after is not None:
        one = duplicates.alias("one")
        recorded_at = select(one.c.recorded_at).where(one.c.pair_id == which.after).scalar_subquery()
        place = tuple_(recorded_at, cast(which.after, duplicates.c.pair_id.type))
        query = query.where(tuple_(duplicates.c.recorded_at, duplicates.c.pair_id) > place)
    return [CurrentPair(**row._mapping) for row in connection.execute(query)]


_OVERLAP = timedelta(seconds=10)  # a transaction that began earlier may be committed later


def follow_pairs(connection: Connection, collection: str | None) -> Iterator[CurrentPair | None]:
    """Pairs as they are recorded, without end; yields None whenever there is no new one."""
    since: datetime | None = None
    seen: set[str] = set()
    while True:
        for pair in current_pairs(connection, PairSelection(collection, since)):
            if pair.pair_id not in seen:
                seen.add(pair.pair_id)
                yield pair
            since = pair.recorded_at - _OVERLAP
        connection.rollback()
        yield None
        time.sleep(0.2)


def count_different(connection: Connection) -> dict[str, int]:
    """How many pairs of people reviewers decided to be different, by collection: of each pair the last decision."""
    people = decisions.c.collection, decisions.c.individual_a, decisions.c.individual_b
    last = (
        select(decisions.c.collection, decisions.c.verdict)
        .ext(distinct_on(*people))
        .order_by(*people, decisions.c.decided_at.desc(), decisions.c.event_id.desc())
        .subquery()
    )
    query = select(last.c.collection, func.count()).where(last.c.verdict == "different").group_by(last.c.collection)
    return {row.collection: row[1] for row in connection.execute(query)}


def count_pairs(connection: Connection) -> dict[str, tuple[int, int]]:
    """Current pairs by collection: on how many nobody has decided yet, and on how many somebody has."""
    holding = (
        select(duplicates.c.collection, func.count())
        .where(duplicates.c.retracted.is_(None))
        .group_by(duplicates.c.collection)
    )
    # Both sides come sorted from indexes, and no heap is read: a fifth of the work of a hash join, which Postgres
    # would choose.
    connection.execute(text("SET LOCAL enable_hashjoin = off; SET LOCAL enable_seqscan = off"))
    decided = {row.collection: row[1] for row in connection.execute(holding.where(_IS_DECIDED))}
    counts = {row.collection: row[1] for row in connection.execute(holding)}
    connection.execute(text("SET LOCAL enable_hashjoin = DEFAULT; SET LOCAL enable_seqscan = DEFAULT"))
    return {
        collection: (counts[collection] - decided.get(collection, 0), decided.get(collection, 0))
        for collection in counts
    }
