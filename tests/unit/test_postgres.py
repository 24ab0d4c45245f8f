"""Which failures of Postgres are waited for."""

import pytest
from sqlalchemy.exc import DBAPIError

from runtime.servers.postgres import is_away


class FailureError(Exception):
    """As psycopg2 raises it, with a SQLSTATE."""

    def __init__(self, state: str | None) -> None:
        super().__init__("it failed")
        self.pgcode = state


@pytest.mark.parametrize(
    ("state", "waits"),
    [
        (None, True),  # the connection broke
        ("08006", True),
        ("25006", True),  # read_only_sql_transaction
        ("40P01", True),  # deadlock_detected
        ("53100", True),  # disk_full
        ("55P03", True),  # lock_not_available
        ("57P03", True),  # cannot_connect_now
        ("22P02", False),  # invalid_text_representation
        ("25P02", False),  # in_failed_sql_transaction
        ("55006", False),  # object_in_use
        ("42P01", False),  # undefined_table
    ],
)
def test_what_waiting_mends_is_waited_for(state: str | None, waits: bool) -> None:
    assert is_away(DBAPIError("INSERT", {}, FailureError(state))) is waits
