"""Which shards are at work."""

from confluent_kafka.admin import AdminClient

from runtime.servers.kafka import client_config, groups_on
from schemas.settings import Settings
from schemas.shard import Shard
from schemas.topics import shard_of
from streams.matcher.vitals import PartitionVitals


def shards_of(said: list[PartitionVitals], partition: int, counts: list[int]) -> list[Shard]:
    """Those that matchers divide a partition into, by what they said last; else by their consumer groups."""
    last = max((one for one in said if one.partition == partition), key=lambda one: one.at, default=None)
    count = counts[-1] if last is None else Shard.parse(last.shard).count
    return [Shard(number, count) for number in range(1, count + 1)]


def shard_counts(settings: Settings) -> list[int]:
    """Numbers of shards, rising, of the matchers whose groups the broker knows; 1 if it knows none."""
    names = groups_on(AdminClient(client_config(settings, "status")), settings.namespace)
    shards = {shard_of(name) for name in names}
    return sorted({shard.count for shard in shards if shard}) or [1]
