"""What every part of facematch that writes to Postgres takes for an outage."""

from sqlalchemy.exc import DBAPIError


def is_away(error: DBAPIError) -> bool:
    """Whether the server is gone, starting, stopping, or broke off a deadlock; see SQLSTATE classes 08, 40, 53, 57.

    https://www.postgresql.org/docs/current/errcodes-appendix.html
    """
    state = getattr(error.orig, "pgcode", None)
    return error.connection_invalidated or state is None or str(state)[:2] in {"08", "40", "53", "57"}
