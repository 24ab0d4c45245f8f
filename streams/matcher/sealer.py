"""Sealing and checkpoints of one partition, in a thread of their own while matching goes on."""

import logging
import threading
import time
from collections.abc import Callable

import structlog

from runtime.process.background import Background
from runtime.process.cores import cores
from schemas.settings import Settings
from streams.checkpoint.manifest import CompactedSegment
from streams.checkpoint.state import state_of
from streams.checkpoint.store import CheckpointStore
from streams.gallery.build import build_segment
from streams.gallery.collection import Collection
from streams.gallery.exact import VectorRows
from streams.gallery.gallery import Gallery
from streams.gallery.segment import Segment

log = structlog.stdlib.get_logger(__name__)

_PAUSE_AFTER_FAILURE_S = 30.0
_LOOKS_EVERY_S = 2.0
_THREADS = max(1, cores() - 1)  # one is left to matching
_one_at_a_time = threading.Lock()  # of all partitions


class Sealer:
    """Builds a segment of each delta that is full, and writes a checkpoint whenever as much has come since the last.

    What compaction made is taken over in place of what it was made of; segments in which nobody lives are dropped.

    `tend` is called between batches by the thread that matches: only there the gallery changes. `saved` is the offset
    of the checkpoint that is there.
    """

    def __init__(self, settings: Settings, gallery: Gallery, checkpoints: CheckpointStore, saved: int) -> None:
        self._settings = settings
        self._gallery = gallery
        self._checkpoints = checkpoints
        self._saved = saved
        self._is_unsaved = False
        self._not_before = 0.0
        self._look_again = 0.0
        self._under_way: tuple[Background, Callable[[], None]] | None = None  # work, and what to do once it is done

    def tend(self, position: int, is_ours: Callable[[], bool]) -> None:
        """Put in place what is finished, and begin what is due. Raises what the background raised."""
        if self._under_way is not None:
            background, finish = self._under_way
            if background.is_running:
                return
            self._under_way = None
            background.check()
            finish()
        limit = self._settings.delta_limit
        self._gallery.put_away(limit)
        self._is_unsaved |= self._gallery.drop_empty()
        due = self._is_unsaved or position - self._saved >= limit
        if (left := self._left_by_compaction(position)) is not None:
            self._begin_to_take(*left)
        elif due and time.monotonic() >= self._not_before:
            self._begin_checkpoint(position, is_ours)
        elif (full := self._gallery.full(limit)) is not None:
            self._begin_segment(*full)

    def _left_by_compaction(self, position: int) -> tuple[bytes, CompactedSegment] | None:
        """A segment to be taken over, of a part of the log that is matched."""
        if time.monotonic() < self._look_again:
            return None
        self._look_again = time.monotonic() + _LOOKS_EVERY_S
        for value, one in self._checkpoints.compacted().items():
            at = self._gallery.compacted_at(one.collection, one.encoder)
            if one.offset <= position and at != one.made_at:
                return value, one
        return None

    def _begin_to_take(self, value: bytes, compacted: CompactedSegment) -> None:
        taken: list[Segment] = []

        def work() -> None:
            segment = self._checkpoints.take(value, compacted)
            if segment is not None:
                taken.append(segment)

        def finish() -> None:
            self._look_again = 0.0  # the others are taken before all are saved
            if not taken:
                return
            collection = self._gallery.collections.setdefault(compacted.collection, Collection())
            collection.adopt_compacted(compacted.encoder, taken[0], compacted.made_at)
            self._is_unsaved = True
            log.info(
                "compacted segment taken over",
                collection=compacted.collection,
                encoder=compacted.encoder,
                people=taken[0].living,
                people_since=len(collection.scopes[compacted.encoder].delta),
            )

        self._begin(work, finish)

    def _begin_checkpoint(self, position: int, is_ours: Callable[[], bool]) -> None:
        state = state_of(self._gallery, position)
        saved = False

        def work() -> None:
            nonlocal saved
            saved = self._checkpoints.save(state, is_ours)

        def finish() -> None:
            if saved:
                self._saved, self._is_unsaved = position, False
            else:
                self._not_before = time.monotonic() + _PAUSE_AFTER_FAILURE_S

        self._begin(work, finish)

    def _begin_segment(self, collection: str, encoder: str, rows: VectorRows) -> None:
        settings = self._settings
        before = reversed(self._gallery.collections[collection].scopes[encoder].segments)
        # Of a segment that is far larger it says nothing.
        at_least = next((one.quality for one in before if len(one) <= 2 * len(rows.ids)), None)
        built: list[Segment] = []

        def work() -> None:
            begun = time.monotonic()
            threshold = settings.threshold_for(collection)
            segment = build_segment(rows, threshold, settings.recall_floor, _THREADS, at_least)
            built.append(segment)
            quality = segment.quality
            log.log(
                logging.INFO if quality.recall >= settings.recall_floor else logging.WARNING,
                "segment sealed",
                collection=collection,
                encoder=encoder,
                people=len(segment),
                seconds=round(time.monotonic() - begun, 1),
                recall=round(quality.recall, 4),
                m=quality.m,
                ef_construction=quality.ef_construction,
                ef=quality.ef,
            )

        def finish() -> None:
            self._gallery.collections[collection].adopt(encoder, rows, built[0])
            self._is_unsaved = True

        self._begin(work, finish)

    def _begin(self, work: Callable[[], None], finish: Callable[[], None]) -> None:
        def run() -> None:
            with _one_at_a_time:
                work()

        # A process that is told to stop does not wait for an index that takes minutes.
        self._under_way = Background(run, "sealer").start(), finish
