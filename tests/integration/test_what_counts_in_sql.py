"""Which of two statements on a pair counts: Postgres chooses as Python does."""

from hypothesis import HealthCheck, given, settings
from sqlalchemy import delete, select

from consumers.sink.rows import rows_of
from consumers.sink.statements import upsert_duplicates
from schemas.tables import duplicates
from tests.integration.world import World
from tests.unit.test_what_counts import STATEMENTS, counts_of, found


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STATEMENTS)
def test_the_row_of_a_pair_is_the_statement_that_counts(world: World, drawn: list[tuple[int, int, int]]) -> None:
    """Each statement is written by itself, as by sinks that read one record at a time."""
    statements = [found(number, *one) for number, one in enumerate(drawn)]
    with world.engine.begin() as connection:
        connection.execute(delete(duplicates))
        for message in statements:
            (row,) = rows_of([(message, 0)]).duplicates
            connection.execute(upsert_duplicates(row), [row])
        assert connection.scalars(select(duplicates.c.distance)).all() == [counts_of(statements)]
