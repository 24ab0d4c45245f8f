"""Two streams of records in turn, by size."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping

from schemas.envelope import Record

_AHEAD_BYTES, _RECORD_BYTES = 4_000_000, 200


def side_by_side(batches: Iterable[list[Record]]) -> Iterator[Record]:
    """Records of each partition in turn, as far as memory goes, so that all who read them have something to do.

    In order within a partition. Kafka hands over a lot of one partition, then of another.
    """
    waiting: dict[int | None, deque[Record]] = {}
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


def _one_of_each(waiting: Mapping[int | None, deque[Record]]) -> Iterator[Record]:
    for records in waiting.values():
        if records:
            yield records.popleft()


def _size(record: Record) -> int:
    return len(record.value or b"") + _RECORD_BYTES
