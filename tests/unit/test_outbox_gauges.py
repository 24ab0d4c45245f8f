"""What waits in the outbox is counted now and then, and a count that fails keeps nobody from relaying."""

from contextlib import nullcontext
from typing import cast

import pytest
from sqlalchemy.engine import Connection

from producers.outbox.gauges import OutboxGauges


class Database:
    """Stands in for Postgres: it cancels every statement, as one does with a statement_timeout."""

    def __init__(self) -> None:
        self.asked = 0

    def begin(self) -> "nullcontext[None]":
        return nullcontext()

    def execute(self, _statement: object) -> None:
        self.asked += 1
        raise TimeoutError


def test_a_count_that_fails_is_not_tried_again_at_once() -> None:
    database, gauges = Database(), OutboxGauges()
    with pytest.raises(TimeoutError):
        gauges.refresh(cast(Connection, database))
    gauges.refresh(cast(Connection, database))
    assert database.asked == 1
