"""Sealing and checkpoints of one partition, in the background while matching goes on."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future

import structlog

from schemas.settings import Settings
from schemas.thresholds import Thresholds
from streams.checkpoint.manifest import CompactedSegment
from streams.checkpoint.state import state_of
from streams.gallery.build import build_segment
from streams.gallery.collection import Collection
from streams.gallery.delta import DeltaRows
from streams.gallery.gallery import Gallery
from streams.matcher.context import BackgroundWork, Checkpoints

log = structlog.stdlib.get_logger(__name__)

_PAUSE_AFTER_FAILURE_S = 30.0
_NOBODY_COMPARED = 0.5  # by an encoder without a threshold: its segments are measured at this
_LOOKS_EVERY_S = 2.0  # for compacted segments, in Redis
_MUCH_LARGER = 2  # times the rows: what such a segment needed says nothing about a smaller one

Finish = Callable[[], None]
"""What is left to do by the thread that matches, once the background is done: only there the gallery changes."""


class Sealer:
    """Background work of one partition, one piece at a time, in this order.

    Take over a segment that compaction made; write a checkpoint when `delta_limit` records have come since the last,
    or the segments changed; seal a delta of `delta_limit` rows. Segments without living rows are dropped.

    `tend` is called between batches by the thread that matches. `saved` is the offset of the checkpoint in Redis.
    """

    def __init__(
        self,
        settings: Settings,
        gallery: Gallery,
        checkpoints: Checkpoints,
        saved: int,
        background: BackgroundWork,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._thresholds = Thresholds(settings)
        self._gallery = gallery
        self._checkpoints = checkpoints
        self._saved = saved
        self._background = background
        self._clock = clock
        self._is_unsaved = False
        self._save_not_before = 0.0
        self._look_not_before = 0.0
        self._under_way: Future[Finish] | None = None

    def tend(self, position: int, is_ours: Callable[[], bool]) -> None:
        """Put what is finished in its place, and begin what is next. Raises what the background raised.

        `position`: the offset below which the gallery has all records. `is_ours`: whether the partition still belongs
        to this process; called in the background too.
        """
        if self._under_way is not None:
            if not self._under_way.done():
                return
            finish = self._under_way.result()
            self._under_way = None
            finish()
        work = self._next_work(position, is_ours)
        if work is not None:
            self._under_way = self._background.begin(work)

    def _next_work(self, position: int, is_ours: Callable[[], bool]) -> Callable[[], Finish] | None:
        limit = self._settings.delta_limit
        self._gallery.put_away(limit)
        self._is_unsaved |= self._gallery.drop_empty()
        is_old = self._is_unsaved or position - self._saved >= limit
        if (compacted := self._find_compacted(position)) is not None:
            return self._taking_over(*compacted)
        if is_old and self._clock() >= self._save_not_before:
            return self._saving(position, is_ours)
        if (full := self._gallery.full(limit)) is not None:
            return self._sealing(*full)
        return None

    def _find_compacted(self, position: int) -> tuple[bytes, CompactedSegment] | None:
        """A compacted segment that the gallery does not have yet, of records that are all matched."""
        if self._clock() < self._look_not_before:
            return None
        self._look_not_before = self._clock() + _LOOKS_EVERY_S
        for value, one in self._checkpoints.compacted().items():
            at = self._gallery.compacted_at(one.collection, one.encoder)
            if one.offset <= position and at != one.made_at and self._gallery.takes(one.collection):
                return value, one
        return None

    def _taking_over(self, value: bytes, compacted: CompactedSegment) -> Callable[[], Finish]:
        def work() -> Finish:
            segment = self._checkpoints.take(value, compacted)

            def finish() -> None:
                self._look_not_before = 0.0  # the others are taken before all are saved
                if segment is None:
                    return
                segment.use_threads(self._background.search_threads)
                collection = self._gallery.collections.setdefault(compacted.collection, Collection())
                collection.adopt_compacted(compacted.encoder, segment, compacted.made_at)
                self._is_unsaved = True
                log.info(
                    "compacted segment taken over",
                    collection=compacted.collection,
                    encoder=compacted.encoder,
                    people=segment.living,
                    people_since=len(collection.scopes[compacted.encoder].delta),
                )

            return finish

        return work

    def _saving(self, position: int, is_ours: Callable[[], bool]) -> Callable[[], Finish]:
        state = state_of(self._gallery, position)

        def work() -> Finish:
            is_saved = self._checkpoints.save(state, is_ours)

            def finish() -> None:
                if is_saved:
                    self._saved, self._is_unsaved = position, False
                else:
                    self._save_not_before = self._clock() + _PAUSE_AFTER_FAILURE_S

            return finish

        return work

    def _sealing(self, collection: str, encoder: str, sealed: DeltaRows) -> Callable[[], Finish]:
        settings, threads = self._settings, self._background.threads
        threshold_now = self._thresholds.of(collection, encoder, self._gallery.collections[collection].living)
        before = reversed(self._gallery.collections[collection].scopes[encoder].segments)
        at_least = next((one.quality for one in before if len(one) <= _MUCH_LARGER * len(sealed.rows.ids)), None)

        def work() -> Finish:
            begun = self._clock()
            threshold = threshold_now or _NOBODY_COMPARED
            segment = build_segment(sealed.rows, threshold, settings.recall_floor, threads, at_least)
            quality = segment.quality
            log.log(
                logging.INFO if quality.recall >= settings.recall_floor else logging.WARNING,
                "segment sealed",
                collection=collection,
                encoder=encoder,
                people=len(segment),
                seconds=round(self._clock() - begun, 1),
                recall=round(quality.recall, 4),
                m=quality.m,
                ef_construction=quality.ef_construction,
                ef=quality.ef,
            )

            def finish() -> None:
                segment.use_threads(self._background.search_threads)
                self._gallery.collections[collection].adopt(encoder, sealed, segment)
                self._is_unsaved = True

            return finish

        return work
