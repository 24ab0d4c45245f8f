"""What a replay has set out to do, in a small file: enough to go on with it. What it has done stands in the log."""

import os
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from producers.replay.selection import Selection
from runtime.servers.log import Span
from schemas.faults import UserFault

_FOLDER = "replays"


class UnknownReplayError(UserFault):
    """There is no plan of that id. Its text names those that there are."""


class ReplayPlan(BaseModel):
    """A selection, what it is chosen from, and where the topics that it goes to ended before it began.

    `source` are the spans that are read, of a file there is `digest` (SHA-256) instead. `ends` are by topic and
    partition.
    """

    model_config = ConfigDict(frozen=True)

    replay_id: str
    began_at: datetime
    selection: Selection
    source: dict[int, Span]
    digest: str | None
    ends: dict[str, dict[int, int]]

    def age(self) -> timedelta:
        """How long ago it began."""
        return datetime.now(UTC) - self.began_at


def new_id() -> str:
    """An id of its own, which begins with the time at which the replay began."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def keep(folder: Path, plan: ReplayPlan) -> None:
    """Write a plan below the data folder; once this returns it is there whatever happens."""
    path = _path(folder, plan.replay_id)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    with draft.open("w") as file:
        file.write(plan.model_dump_json())
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def find(folder: Path, replay_id: str) -> ReplayPlan:
    """The plan of that id. Raises UnknownReplayError."""
    known = sorted(path.stem for path in (folder / _FOLDER).glob("*.json"))
    if replay_id not in known:
        raise UnknownReplayError(f"{replay_id} is no replay of this data folder; the latest: {known[-5:] or 'none'}")
    try:
        return ReplayPlan.model_validate_json(_path(folder, replay_id).read_bytes())
    except ValidationError:
        raise UnknownReplayError(f"{_path(folder, replay_id)} is no plan of a replay") from None


def _path(folder: Path, replay_id: str) -> Path:
    return folder / _FOLDER / f"{replay_id}.json"
