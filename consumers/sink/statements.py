"""The statements that write rows. Each is idempotent; the rows come out the same in any order of the revisions."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, TextClause, and_, case, func, literal_column, or_, text, true, tuple_
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.sql.dml import ReturningInsert

from consumers.sink.rows import CHECKED, REGISTERED
from schemas.events.pairs import RetractionReason
from schemas.tables import certificates, checks, decisions, duplicates, individuals, pair_version, retractions


def upsert_individuals(guard: str, columns: Iterable[str]) -> Insert:
    """Writes one column group of `individuals`, by the rule of `rows.latest_row`.

    Records of one key are in one partition: the later of equal revisions is written later, also where both are again.
    """
    statement = insert(individuals)
    old, new = individuals.c, statement.excluded
    values: dict[str, Any] = {name: new[name] for name in columns if name not in ("collection", "individual_id")}
    not_higher: ColumnElement[bool] = old[guard] <= new[guard]
    if guard == CHECKED:
        found = (func.coalesce(one.duplicates_found, -1) for one in (old, new))
        not_higher = tuple_(old[guard], next(found)) <= tuple_(new[guard], next(found))
    if guard == REGISTERED:
        differs = and_(old[guard] == new[guard], or_(old.conflicting, old.content != new.content))
        values["conflicting"] = case((differs, true()), else_=new.conflicting)
    return statement.on_conflict_do_update(
        index_elements=[old.collection, old.individual_id],
        set_=values,
        where=or_(old[guard].is_(None), not_higher),
    )


def merge_checks() -> ReturningInsert[Any]:
    """Adds reports of shards to those of the same revision, and returns the rows as they are afterwards.

    Each row is locked: of several sinks, the one that adds the last report sees all the others.
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


def upsert_duplicates(columns: Iterable[str]) -> Insert:
    """Writes pairs over those stored of a lower version: of lower revisions, or of the same and earlier."""
    statement = insert(duplicates)
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=[duplicates.c.pair_id],
        set_={name: new[name] for name in columns if name != "pair_id"},
        where=pair_version(duplicates.c) < pair_version(new),
    )


def retract_past_pairs() -> tuple[TextClause, ...]:
    """Retract pairs of revisions that are past: a member has been checked at a higher one since.

    An index may miss the pair that an update ends; then nobody publishes its retraction before the next compaction.
    Parameters: `collections` and `people`, equally long, whose pairs are looked at, and `pairs`, which are too.
    """
    return tuple(
        text(f"""
            UPDATE duplicates SET retracted = '{RetractionReason.UPDATED}'
            FROM individuals AS one
            WHERE (one.collection, one.individual_id) = (duplicates.collection, duplicates.individual_{side})
                AND one.checked_revision > duplicates.revision_{side} AND duplicates.retracted IS NULL AND {which}
        """)
        for side in ("a", "b")
        for which in (
            """(one.collection, one.individual_id) IN (
                SELECT * FROM unnest(CAST(:collections AS varchar[]), CAST(:people AS varchar[])))""",
            "duplicates.pair_id = ANY(CAST(:pairs AS uuid[]))",
        )
    )


def add_retractions() -> Insert:
    """Writes retractions that are not there yet."""
    return insert(retractions).on_conflict_do_nothing()


def add_decisions() -> Insert:
    """Writes decisions that are not there yet."""
    return insert(decisions).on_conflict_do_nothing()


def add_certificates() -> Insert:
    """Writes certificates that are not there yet."""
    return insert(certificates).on_conflict_do_nothing()
