"""aiokafka's reading of fetched batches, which goes past one that it cannot take apart: the matcher reads that itself.

aiokafka decodes the names of headers as UTF-8, and whoever sent others would end every matcher for good.
"""

from collections.abc import Iterator
from typing import Any

import structlog
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.structs import ConsumerRecord

from schemas.envelope import UNREADABLE, UNREADABLE_BATCH

log = structlog.stdlib.get_logger(__name__)


class _Batches:
    """Batches in memory; `last` is the one that was handed over last."""

    def __init__(self, records: Any) -> None:
        self._records = records
        self.last: Any = None

    def has_next(self) -> bool:
        return bool(self._records.has_next())

    def next_batch(self) -> Any:
        self.last = self._records.next_batch()
        return self.last


class _WholeBatches(PartitionRecords):  # type: ignore[misc] # aiokafka has no types
    """Of a batch that cannot be taken apart, one record with the header UNREADABLE, at the batch's last offset."""

    def __init__(self, tp: Any, records: Any, *arguments: Any) -> None:
        super().__init__(tp, _Batches(records), *arguments)

    def _unpack_records(self) -> Iterator[ConsumerRecord[bytes, bytes]]:
        while True:
            try:
                yield from super()._unpack_records()
            except CorruptRecordException:  # of a checksum: it is fetched again
                raise
            except Exception as error:
                if self._records.last is None:
                    raise
                offset = self._records.last.next_offset - 1
                log.warning(
                    "a batch cannot be taken apart: it is read from the log",
                    partition=self._tp.partition,
                    last_offset=offset,
                    error=type(error).__name__,
                )
                self.next_fetch_offset = offset + 1
                header = (UNREADABLE, UNREADABLE_BATCH)
                yield ConsumerRecord(
                    self._tp.topic, self._tp.partition, offset, 0, 0, None, None, None, -1, -1, (header,)
                )
            else:
                return


def read_whole_batches() -> None:
    """Have aiokafka read so in this process: it offers no way to say so."""
    fetcher.PartitionRecords = _WholeBatches
