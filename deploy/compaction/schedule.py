"""A schedule: a cron expression in a time zone, and the time that it names next."""

from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from schemas.faults import UserFault


class ScheduleError(UserFault):
    """A schedule that cannot be read. The text says what is allowed."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A cron expression, read as Debian's cron reads it, in a time zone."""

    expression: str
    zone: ZoneInfo

    @classmethod
    def parse(cls, expression: str, time_zone: str) -> "Schedule":
        """Read an expression of five fields and the name of a time zone. Raises ScheduleError."""
        try:
            zone = ZoneInfo(time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ScheduleError(
                f"FACEMATCH_TIME_ZONE: {time_zone!r} is not in the tz database; Europe/Zurich is, or UTC"
            ) from None
        schedule = cls(expression, zone)
        try:
            if len(expression.split()) != 5:  # with six, the first would be seconds
                raise CronSimError("Bad number of fields")
            schedule.next_after(datetime.now(UTC))
        except (CronSimError, StopIteration) as error:
            why = str(error) or "it never comes"
            raise ScheduleError(
                f"FACEMATCH_COMPACT_AT: {expression!r}: {why}. Five fields are expected: minute (0-59), hour (0-23), "
                "day of the month (1-31), month (1-12), day of the week (0-7, 0 and 7 are Sunday); "
                '"0 2 * * *" is every night at two'
            ) from None
        return schedule

    def next_after(self, time: datetime) -> datetime:
        """The first scheduled time after `time`, both with a time zone."""
        # When summer time ends an hour comes twice: of a time in the second CronSim may name one in the first.
        times = (found.astimezone(UTC) for found in CronSim(self.expression, time.astimezone(self.zone)))
        return next(found for found in times if found > time).astimezone(self.zone)
