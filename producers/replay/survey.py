"""Reads what a selection chooses, from a topic or a file, once it is known what became of it."""

import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Protocol

from producers.replay.chooser import ERASED, Answers, Chooser, ChosenEvent
from producers.replay.file import BrokenLineError, FileRecord, records_in
from producers.replay.groups import CLIENT
from producers.replay.interleave import side_by_side
from producers.replay.outcomes import EncodingAnswer, Outcomes, RejectionAnswer
from producers.replay.selection import Selection, SelectionError
from runtime.servers.erasures import ErasureLog
from runtime.servers.log import Span, TopicLog
from schemas.envelope import StoredRecord, kafka_time
from schemas.events.base import Event
from schemas.settings import Settings
from schemas.topics import ENCODINGS, REJECTIONS, Topic, topic_named

_BROKEN_SHOWN = 5


class OnReading(Protocol):
    """Called while records are read: what is done, how many records of how many."""

    def __call__(self, what: str, done: int, total: int) -> None: ...


class Survey:
    """What a selection chooses: `chosen`. `source` are the spans that are read of the topic.

    Those of an earlier survey may be given: then the same is chosen, but for what does not count any more.
    Raises SelectionError, MissingTopicsError, and ErasureKeyError where no key is set.
    """

    def __init__(
        self,
        settings: Settings,
        selection: Selection,
        progress: OnReading,
        source: Mapping[int, Span] | None = None,
    ) -> None:
        self._settings = settings
        self._selection = selection
        self._progress = progress
        self.encoded_since = self.read = 0
        self._log: TopicLog | None = None
        self.digest: str | None = None
        self.topics: list[Topic[Event]] = []
        if selection.file is None:
            self.topics = [topic_named(selection.topic)]
            self._log = TopicLog(settings, self.topics[0], CLIENT)
            self.source = dict(source) if source is not None else self._spans(self._log)
        else:
            self.source = {}
            self._lines = self._check_file(selection.file)
        with ErasureLog(settings, CLIENT) as erasures:
            erased = erasures.catch_up().erased
        self._whom = self._wanted()
        self.chooser = Chooser(selection, erased, self._whom)

    def chosen(self, what: str = "reading") -> Iterator[ChosenEvent]:
        """All that is chosen; in order for each individual. Raises SelectionError at the end: see `Chooser.check`."""
        total = sum(span.size for span in self.source.values()) if self._log else self._lines
        for record in self._records():
            self.read += 1
            if self.read % 100 == 0:
                self._progress(what, self.read, total)
            one = self.chooser.choose(record)
            if one is not None:
                yield one
        self._progress(what, total, total)
        self.chooser.check()

    @property
    def missing(self) -> int:
        """Of how many that were meant no event is there any more; once all is read."""
        if self._whom is None or not self._selection.has_outcome or self._selection.offsets or self._selection.file:
            return 0
        return max(0, len(self._whom) - self.chooser.chosen - self.chooser.left_out[ERASED])

    def outcomes(self, whose: set[str]) -> Outcomes:
        """What became of individuals by now."""
        found = Outcomes(whose)
        for record in self._read(REJECTIONS):
            found.add_rejection(record)
        for record in self._read(ENCODINGS):
            found.add_encoding(record)
        return found

    def close(self) -> None:
        """Let go of the broker."""
        if self._log is not None:
            self._log.close()

    def _records(self) -> Iterator[StoredRecord | FileRecord]:
        if self._log is not None:
            yield from side_by_side(self._log.read(self.source))
        elif self._selection.file is not None:
            with self._selection.file.open(errors="surrogateescape") as lines:
                yield from (one for one in records_in(lines) if isinstance(one, FileRecord))

    def _check_file(self, path: Path) -> int:
        """How many records a file has. Raises SelectionError unless all its lines are good."""
        try:
            with path.open(errors="surrogateescape") as lines:
                records = [one if isinstance(one, BrokenLineError) else one.topic for one in records_in(lines)]
            with path.open("rb") as file:
                self.digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise SelectionError(f"{path} cannot be read: {error}") from None
        broken = [one for one in records if isinstance(one, BrokenLineError)]
        if broken:
            shown = "; ".join(map(str, islice(broken, _BROKEN_SHOWN)))
            raise SelectionError(
                f"{path} has {len(broken)} broken lines of {len(records)}, and nothing is sent: {shown}. Put them "
                "right or take them out; `facematch replay --write` writes such files"
            )
        if not records:
            raise SelectionError(f"{path} has no events in it")
        self.topics = [topic_named(name) for name in sorted({str(one) for one in records})]
        return len(records)

    def _spans(self, log: TopicLog) -> dict[int, Span]:
        selection = self._selection
        now = datetime.now(UTC)
        for name, time in (("--since", selection.since), ("--until", selection.until)):
            if time is not None and time > now:
                raise SelectionError(f"{name} {time.isoformat()} is in the future: it is {now.isoformat()} now")
        by_time = selection.since is not None and not selection.has_outcome
        everything = log.spans()
        spans = log.since(selection.since) if selection.since is not None and by_time else everything
        if not selection.offsets:
            return spans
        for partition, begin, end in selection.offsets:
            there = everything.get(partition)
            if there is None:
                raise SelectionError(
                    f"{selection.topic} has no partition {partition}: it has 0 to {len(everything) - 1}"
                )
            if begin < there.begin or max(begin + 1, end or 0) > there.end:
                what = f"the offsets {there.begin} to {there.end - 1}" if there.size else "no records"
                raise SelectionError(f"partition {partition} of {selection.topic} has {what}")
        return {
            partition: Span(
                max(spans[partition].begin, min(one.begin for one in selection.offsets if one.partition == partition)),
                max(one.end or spans[partition].end for one in selection.offsets if one.partition == partition),
            )
            for partition in {one.partition for one in selection.offsets}
        }

    def _wanted(self) -> Answers | None:
        """Whom it is about, where that depends on what became of them."""
        if self._selection.reason is not None:
            return self._rejected()
        if self._selection.encoder is not None or (
            self._selection.topic == ENCODINGS.name and not self._selection.file
        ):
            return self._encoded()
        return None

    def _rejected(self) -> dict[str, RejectionAnswer]:
        outcomes, selection = Outcomes(), self._selection
        for record in self._read(REJECTIONS):
            outcomes.add_rejection(record)
        found = {
            key: one
            for key, one in outcomes.rejections.items()
            if one.reason is selection.reason and selection.is_in_time(one.timestamp) and selection.is_about(key)
        }
        if not found:
            return {}
        since = Outcomes(found)
        oldest = min(one.timestamp for one in found.values())
        for record in self._read(ENCODINGS, kafka_time(oldest)):
            since.add_encoding(record)
        left = {key: one for key, one in found.items() if not since.is_encoded(key, one.revision)}
        self.encoded_since = len(found) - len(left)
        return left

    def _encoded(self) -> dict[str, EncodingAnswer]:
        outcomes, selection = Outcomes(), self._selection
        for record in self._read(ENCODINGS):
            outcomes.add_encoding(record)
        if selection.encoder is None:
            return outcomes.encodings
        encoders = {one.encoder for one in outcomes.encodings.values() if one.encoder is not None}
        if selection.encoder not in encoders:
            there = ", ".join(sorted(encoders)) or "nobody is encoded at all"
            raise SelectionError(f"nobody's latest encoding is of encoder {selection.encoder}; there are: {there}")
        return {
            key: one
            for key, one in outcomes.encodings.items()
            if one.encoder == selection.encoder and selection.is_in_time(one.timestamp) and selection.is_about(key)
        }

    def _read(self, topic: Topic[Event], since: datetime | None = None) -> Iterator[StoredRecord]:
        """All records of a topic, or those since a time."""
        with TopicLog(self._settings, topic, CLIENT) as log:
            spans = log.spans() if since is None else log.since(since)
            done, total = 0, sum(span.size for span in spans.values())
            for batch in log.read(spans):
                done += len(batch)
                self._progress(f"reading {topic.name}", done, total)
                yield from batch
