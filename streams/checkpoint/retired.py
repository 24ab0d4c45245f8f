"""What matchers of an earlier number of shards left in Redis: it holds embeddings of people who were erased since.

Nobody corrects such a checkpoint any more. It goes once the matchers of another number have reported for a while and
its own have not. Should they come back, they read the log from its beginning: a checkpoint is a cache.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

import structlog
from pydantic import BaseModel
from redis import Redis

from runtime.servers.redis import value_of
from schemas.settings import Settings
from schemas.shard import Shard

log = structlog.stdlib.get_logger(__name__)

SILENT_FOR = timedelta(minutes=1)  # a matcher reports every few seconds
_VITALS = b"}:vitals"
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
_KEY = re.compile(rb".*\{([0-9]+/[0-9]+):([0-9]+)\}:(manifest|compacted|vitals|chunk:.*)", re.DOTALL)
_UNLINKED_AT_ONCE = 1000


class _Report(BaseModel):
    """Of a matcher's vitals, when it reported."""

    at: datetime


def keys_of_counts(redis: Redis, settings: Settings) -> dict[tuple[int, int], list[bytes]]:
    """The keys of checkpoints and vitals, by the partition and the number of shards that they are of."""
    found: dict[tuple[int, int], list[bytes]] = defaultdict(list)
    for name in redis.scan_iter(match=f"{settings.namespace}:{{*", count=1000):
        parts = _KEY.fullmatch(name)
        if parts is not None:
            found[int(parts[2]), Shard.parse(parts[1].decode()).count].append(name)
    return found


def retired_keys(
    redis: Redis, found: Mapping[tuple[int, int], Iterable[bytes]], silent_for: timedelta = SILENT_FOR
) -> dict[tuple[int, int], list[bytes]]:
    """Those of `keys_of_counts` of whose number of shards no matcher has reported for a time, but of another one."""
    reported = {place: _last_report(redis, names) for place, names in found.items()}
    newest: dict[int, datetime] = {}
    for (partition, _), at in reported.items():
        newest[partition] = max(at, newest.get(partition, _NEVER))
    return {place: list(names) for place, names in found.items() if newest[place[0]] - reported[place] >= silent_for}


def remove_retired(redis: Redis, settings: Settings, vitals: bool = False) -> int:
    """Remove the checkpoints of numbers of shards out of use, and the vitals too where asked for.

    Returns how many keys were removed.
    """
    removed = 0
    for (partition, count), found in retired_keys(redis, keys_of_counts(redis, settings)).items():
        names = [name for name in found if vitals or not name.endswith(_VITALS)]
        if not names:
            continue
        for begin in range(0, len(names), _UNLINKED_AT_ONCE):
            redis.unlink(*names[begin : begin + _UNLINKED_AT_ONCE])
        removed += len(names)
        log.info("the checkpoints of a number of shards out of use are removed", partition=partition, shards=count)
    return removed


def _last_report(redis: Redis, names: Iterable[bytes]) -> datetime:
    """When matchers of that number of shards last reported."""
    values = (value_of(redis, name) for name in names if name.endswith(_VITALS))
    return max((_Report.model_validate_json(value).at for value in values if value), default=_NEVER)
