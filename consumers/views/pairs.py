"""The current pairs, read from the tables."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import and_, func, select
from sqlalchemy.engine import Connection

from schemas.tables import duplicates, individuals, pair_verdicts


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


_SAME_PAIR = and_(
    *(duplicates.c[name] == pair_verdicts.c[name] for name in ("collection", "individual_a", "individual_b"))
)


def current_pairs(
    connection: Connection, collection: str | None = None, since: datetime | None = None, decided: bool = False
) -> list[CurrentPair]:
    """Pairs that hold, in the order in which they were recorded: of one collection, recorded at `since` or later.

    Pairs on which a reviewer has decided are left out unless `decided`.
    """
    a, b = individuals.alias("a"), individuals.alias("b")
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
            pair_verdicts.c.verdict,
            pair_verdicts.c.decided_by,
        )
        .outerjoin(pair_verdicts, _SAME_PAIR)
        .outerjoin(a, and_(a.c.collection == duplicates.c.collection, a.c.individual_id == duplicates.c.individual_a))
        .outerjoin(b, and_(b.c.collection == duplicates.c.collection, b.c.individual_id == duplicates.c.individual_b))
        .where(duplicates.c.retracted.is_(None))
        .order_by(duplicates.c.recorded_at, duplicates.c.pair_id)
    )
    if not decided:
        query = query.where(pair_verdicts.c.verdict.is_(None))
    if collection is not None:
        query = query.where(duplicates.c.collection == collection)
    if since is not None:
        query = query.where(duplicates.c.recorded_at >= since)
    return [CurrentPair(**row._mapping) for row in connection.execute(query)]


_OVERLAP = timedelta(seconds=10)  # a transaction that began earlier may be committed later


def follow_pairs(connection: Connection, collection: str | None) -> Iterator[CurrentPair | None]:
    """Pairs as they are recorded, without end; yields None whenever there is no new one."""
    since: datetime | None = None
    seen: set[str] = set()
    while True:
        for pair in current_pairs(connection, collection, since):
            if pair.pair_id not in seen:
                seen.add(pair.pair_id)
                yield pair
            since = pair.recorded_at - _OVERLAP
        connection.rollback()
        yield None
        time.sleep(0.2)


def count_pairs(connection: Connection) -> dict[str, tuple[int, int]]:
    """Current pairs by collection: on how many nobody has decided yet, and on how many somebody has."""
    query = (
        select(
            duplicates.c.collection,
            func.count() - func.count(pair_verdicts.c.verdict),
            func.count(pair_verdicts.c.verdict),
        )
        .outerjoin(pair_verdicts, _SAME_PAIR)
        .where(duplicates.c.retracted.is_(None))
        .group_by(duplicates.c.collection)
    )
    return {collection: (undecided, decided) for collection, undecided, decided in connection.execute(query)}
