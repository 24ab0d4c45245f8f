"""Whose clock counts: that of who made an event, or Kafka's, which had it later. Pure.

The clock of a tablet may be years ahead. What it says is therefore taken as said when Kafka had it, at the latest.
"""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(microseconds=999)  # a timestamp of Kafka's is a whole millisecond: its end is meant
# From 2000 until the last day of 9999. A timestamp outside is that of a clock that lost the time: it bounds nothing.
_EARLIEST_MS, _LATEST_MS = 946_684_800_000, 253_402_214_400_000


def arrival(timestamp: int) -> datetime | None:
    """When Kafka had a record, by its timestamp in milliseconds since 1970; None where that is no such time."""
    if not _EARLIEST_MS <= timestamp <= _LATEST_MS:
        return None
    return _EPOCH + timedelta(milliseconds=timestamp) + _MILLISECOND


def at_the_latest_on_arrival(time: datetime, timestamp: int) -> datetime:
    """A ce_time as it counts: nothing was made after Kafka had it, whatever a clock said."""
    arrived = arrival(timestamp)
    return time if arrived is None or time <= arrived else arrived


def not_before_arrival(time: datetime, timestamp: int) -> datetime:
    """The time of an erasure as it counts: it ends what was known when Kafka had it, whatever a clock said."""
    arrived = arrival(timestamp)
    return time if arrived is None or time >= arrived else arrived
