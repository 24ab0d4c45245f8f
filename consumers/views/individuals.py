"""How many individuals there are in each state."""

from sqlalchemy import func, select
from sqlalchemy.engine import Connection

from schemas.tables import erased, individual_duplicates


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
