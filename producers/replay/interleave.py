"""Two streams of records in turn, by size."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping

from schemas.envelope import StoredRecord

_AHEAD_BYTES, _RECORD_BYTES = 4_000_000, 200


def side_by_side(batches: Iterable[list[StoredRecord]]) -> Iterator[StoredRecord]:
    """Records of each partition in turn, as far as memory goes, so that all who read them have something to do.

    In order within a partition. Kafka hands over a lot of one partition, then of another.
    """
    waiting: dict[int, deque[StoredRecord]] = {}
    ahead = 0
    for batch in batches:
        for record in batch:
            waiting.setdefault(record.partition, deque()).append(record)
            ahead += _size(record)
        while ahead > _AHEAD_BYTES:
            for record in _one_of_each(waiting):
                ahead -= _size(record)
                yield record
    while any(waiting.values()):
        yield from _one_of_each(waiting)


def _one_of_each(waiting: Mapping[int, deque[StoredRecord]]) -> Iterator[StoredRecord]:
    for records in waiting.values():
        if records:
            yield records.popleft()


def _size(record: StoredRecord) -> int:
    return len(record.value or b"") + _RECORD_BYTES
