"""Times on the command line."""

import re
from datetime import UTC, datetime, timedelta

from deploy.commands.app import UserError

TIME_HELP = "A time (2026-01-31, 2026-01-31T09:30, UTC unless it says otherwise), or how long ago: 90s, 30m, 12h, 7d."
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_time(name: str, text: str | None, now: datetime | None = None) -> datetime | None:
    """The time that an option of that name gives; None where it is not given. Raises UserError."""
    if text is None:
        return None
    now = now or datetime.now(UTC)
    if ago := re.fullmatch(r"([0-9]{1,5})([smhd])", text):
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise UserError(f"{name} {text}: {TIME_HELP[0].lower()}{TIME_HELP[1:]}") from None
    time = time.replace(tzinfo=UTC) if time.tzinfo is None else time
    if time > now:
        raise UserError(f"{name} {text} is in the future: it is {now:%Y-%m-%dT%H:%M:%S} (UTC) now")
    return time


def parse_period(since: str | None, until: str | None) -> tuple[datetime | None, datetime | None]:
    """Of --since and --until, each as `parse_time` reads it. Raises UserError."""
    begin, end = parse_time("--since", since), parse_time("--until", until)
    if begin is not None and end is not None and begin >= end:
        raise UserError(f"--since {since} is not before --until {until}")
    return begin, end
