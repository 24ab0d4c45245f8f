"""How many individuals there are in each state, and whose registrations conflict."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.engine import Connection

from schemas.tables import erased, individual_duplicates, individuals


def count_states(connection: Connection) -> dict[str, dict[str, int]]:
    """How many individuals are in each state, by collection; of the erased, how many ever were."""
    view = individual_duplicates.c
    query = select(view.collection, view.state, func.count()).group_by(view.collection, view.state)
    counts: dict[str, dict[str, int]] = {}
    for collection, state, count in connection.execute(query.order_by(view.collection)):
        counts.setdefault(collection, {})[state] = count
    for collection, count in connection.execute(
        select(erased.c.collection, func.count()).group_by(erased.c.collection)
    ):
        counts.setdefault(collection, {})["erased"] = count
    return counts


@dataclass(frozen=True, slots=True)
class ConflictingIndividual:
    """An individual whose revision was registered with more than one content; `photo` is that of the last one."""

    collection: str
    individual_id: str
    revision: int
    photo: str


def conflicting_individuals(
    connection: Connection, collection: str | None = None, limit: int | None = None
) -> list[ConflictingIndividual]:
    """Whoever is registered with conflicting contents at their latest revision, by collection and id."""
    table = individuals.c
    query = (
        select(table.collection, table.individual_id, table.registered_revision.label("revision"), table.photo)
        .where(table.conflicting)
        .order_by(table.collection, table.individual_id)
        .limit(limit)
    )
    if collection is not None:
        query = query.where(table.collection == collection)
    return [ConflictingIndividual(**row._mapping) for row in connection.execute(query)]


def count_conflicting(connection: Connection) -> dict[str, int]:
    """How many individuals are registered with conflicting contents, by collection; others are left out."""
    collection = individuals.c.collection
    query = select(collection, func.count()).where(individuals.c.conflicting).group_by(collection).order_by(collection)
    return {row.collection: row[1] for row in connection.execute(query)}
