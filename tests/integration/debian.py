"""Debian's servers, for what the packages' are built without or users have: TLS, and a Postgres of their own."""

from pathlib import Path

import pytest

POSTGRES = max((one.parent for one in Path("/usr/lib/postgresql").glob("*/bin/postgres")), default=None)
"""The folder of the programs of the newest PostgreSQL."""
REDIS = next(Path("/usr/bin").glob("redis-server"), None)


def require_servers() -> None:
    """Fail the test where they are not installed."""
    if POSTGRES is None or REDIS is None:
        pytest.fail("Debian's servers are not on this machine: apt-get install postgresql redis-server")
