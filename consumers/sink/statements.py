"""The statements that write rows. Each is idempotent; the rows come out the same in any order of the events."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, func, literal_column, or_, tuple_
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.sql.dml import ReturningInsert

from consumers.sink.rows import CHECKED
from schemas.tables import certificates, checks, decisions, duplicates, individuals, pair_version, retractions


def upsert_individuals(guard: str, columns: Iterable[str]) -> Insert:
    """Writes one column group of `individuals`, where the stored revision of that group is lower or absent.

    Of two checks of one revision (by different numbers of shards, say) the one that found more than it published stays.
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
    """Writes pairs, where what is stored was said of lower revisions, or earlier of the same."""
    statement = insert(duplicates)
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=[duplicates.c.pair_id],
        set_={name: new[name] for name in columns if name != "pair_id"},
        where=pair_version(duplicates.c) < pair_version(new),
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
