"""The shards at work."""

from confluent_kafka.admin import AdminClient

from runtime.servers.kafka import client_config, groups_on, retry_while_away
from schemas.settings import Settings
from schemas.shard import Shard
from schemas.topics import shard_of
from streams.matcher.vitals import PartitionVitals


def shards_of(vitals: list[PartitionVitals], partition: int, counts: list[int]) -> list[Shard]:
    """The shards of a partition, by the latest vitals of its matchers; without any, by their consumer groups."""
    last = max((one for one in vitals if one.partition == partition), key=lambda one: one.at, default=None)
    count = counts[-1] if last is None else Shard.parse(last.shard).count
    return [Shard(number, count) for number in range(1, count + 1)]


def shard_counts(settings: Settings) -> list[int]:
    """The counts of shards, ascending, of the matchers' consumer groups at the broker; [1] without any."""
    admin = AdminClient(client_config(settings, "status"))
    names = retry_while_away(lambda: groups_on(admin, settings.namespace), "groups")
    shards = {shard_of(name) for name in names}
    return sorted({shard.count for shard in shards if shard}) or [1]
