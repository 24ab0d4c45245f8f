"""The sink's tables in memory: the rules of its statements, held against Postgres by a test.

What is pure is the sink's own: `rows_of`. Here is what SQL does with the rows, and with erasures. Decisions,
certificates and the reports of several shards are left out.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from consumers.sink.batch import Events, Publish, Remaining
from consumers.sink.rows import CHECKED, TableRow, latest_row, rows_of
from schemas.envelope import Message, Source, encode
from schemas.erased import Erased, Erasure, ErasureKey
from schemas.events.base import Event, IndividualEvent, Member
from schemas.events.encodings import EncodingErased
from schemas.events.pairs import (
    DuplicateFound,
    FindingErased,
    IndividualChecked,
    KeyErased,
    PairEvent,
    RetractionReason,
)
from schemas.events.registrations import IndividualDeleted, IndividualErased
from schemas.tables import column_groups

Row = dict[str, Any]
_COLUMN_GROUPS = column_groups()


class MemoryTables:
    """`individuals`, `duplicates`, `retractions` and `erased`, by their primary keys. Rows are never changed."""

    def __init__(self, key: ErasureKey, registry: Erased) -> None:
        self._key, self._registry = key, registry
        self.individuals: dict[tuple[str, str], Row] = {}
        self.duplicates: dict[str, Row] = {}
        self.retractions: dict[tuple[str, str], Row] = {}
        self.erased: dict[str, tuple[str, Erasure]] = {}

    def write(self, events: Events, publish: Publish) -> Remaining:
        """See `Tables.write`."""
        new = MemoryTables(self._key, self._registry)
        for name in ("individuals", "duplicates", "retractions", "erased"):
            setattr(new, name, dict(getattr(self, name)))
        remaining = new._apply_erasures(events)
        new._upsert(remaining.events)
        behind = [one for message, _ in events for one in new._published_behind(message)]
        publish([encode(message) for message in remaining.nulls + behind])
        self.__dict__ = new.__dict__
        return remaining

    # statements

    def _upsert(self, events: Events) -> None:
        rows = rows_of(events)
        for guard, group in rows.individuals.items():
            for row in group:
                place = row["collection"], row["individual_id"]
                before = self.individuals.get(place)
                self.individuals[place] = {**(before or {}), **_group(guard, latest_row(guard, before, row))}
        for row in rows.duplicates:
            known = self.duplicates.get(row["pair_id"])
            if known is None or _pair_version(known) < _pair_version(row):
                self.duplicates[row["pair_id"]] = dict(row)
        for pair_id, pair in self.duplicates.items():
            if pair["retracted"] is None and self._is_past(pair):
                self.duplicates[pair_id] = {**pair, "retracted": RetractionReason.UPDATED.value}
        for row in rows.retractions:
            self.retractions.setdefault((row["pair_id"], row["event_id"]), dict(row))

    def _is_past(self, pair: Row) -> bool:
        """Whether a member was checked at a higher revision than that of the pair."""
        members = {pair["individual_a"]: pair["revision_a"], pair["individual_b"]: pair["revision_b"]}
        return any(
            (self.individuals.get((pair["collection"], who), {}).get(CHECKED) or 0) > revision
            for who, revision in members.items()
        )

    # erasing

    def _apply_erasures(self, events: Events) -> Remaining:
        messages = [message for message, _ in events]
        erasures = [m for m in messages if isinstance(m.event, IndividualDeleted | EncodingErased | IndividualErased)]
        nulls: dict[tuple[type[Event], str], Message[Event]] = {}
        for message in erasures:
            self._register(message)
        for message in erasures:
            if isinstance(message.event, IndividualEvent):
                nulls |= {(type(one.event), one.event.key): one for one in self._erase(message, message.event)}
        recent = Erased(self._key, {digest: erasure for digest, (_, erasure) in self.erased.items()})
        kept: Events = []
        for message, timestamp in events:
            if self._registry.forbids(message) or recent.forbids(message):
                nulls |= {(type(one.event), one.event.key): one for one in self._null_behind(message)}
            else:
                kept.append((message, timestamp))
        return Remaining(kept, list(nulls.values()))

    def _register(self, message: Message[Event]) -> None:
        event = message.event
        if isinstance(event, IndividualEvent):
            event = self._key.erasure_of(event.collection, event.individual_id, event.revision)
        assert isinstance(event, IndividualErased)
        new = event.collection, Erasure(event.revision, message.time)
        self.erased[event.digest] = max(new, self.erased.get(event.digest, new))

    def _erase(self, message: Message[Event], event: IndividualEvent) -> Iterator[Message[Event]]:
        keys = {event.key} if self._empty_individual(event) else set()
        for pair_id in [one for one, row in self.duplicates.items() if _is_about(row, event)]:
            del self.duplicates[pair_id]
            keys.add(pair_id)
        for place in [one for one, row in self.retractions.items() if _is_about(row, event)]:
            del self.retractions[place]
            keys.add(place[0])
        for one in sorted(keys):
            yield message.derive(FindingErased(collection=event.collection, erased_key=one), Source.SINK)

    def _empty_individual(self, event: IndividualEvent) -> bool:
        """Whether a check was among what it says no more."""
        before = self.individuals.get((event.collection, event.individual_id))
        if before is None:
            return False
        emptied = [guard for guard in _COLUMN_GROUPS if (before.get(guard) or 0) <= event.revision]
        if len(emptied) == len(_COLUMN_GROUPS):
            del self.individuals[event.collection, event.individual_id]
        else:
            gone = {name for guard in emptied for name in _COLUMN_GROUPS[guard]}
            left = {name: value for name, value in before.items() if name not in gone}
            self.individuals[event.collection, event.individual_id] = left
        return before.get(CHECKED) is not None and CHECKED in emptied

    def _null_behind(self, message: Message[Event]) -> Iterator[Message[Event]]:
        event = message.event
        if isinstance(event, PairEvent):
            is_known = event.key in self.duplicates
        elif isinstance(event, IndividualChecked):
            row = self.individuals.get((event.collection, event.individual_id), {})
            is_known = row.get(CHECKED) is not None
        else:
            return
        if not is_known:
            yield message.derive(FindingErased(collection=event.collection, erased_key=event.key), Source.SINK)

    def _published_behind(self, message: Message[Event]) -> Iterator[Message[Event]]:
        event = message.event
        if isinstance(event, KeyErased):
            yield from self._restore_after_null(message)
        elif message.source == Source.SINK and self._is_overtaken(message):
            null = message.derive(FindingErased(collection=event.collection, erased_key=event.key), Source.SINK)
            yield from list(self._restore_after_null(null)) or [null]

    def _is_overtaken(self, message: Message[Event]) -> bool:
        event = message.event
        if isinstance(event, DuplicateFound):
            pair = self.duplicates.get(event.key)
            return pair is not None and (
                pair["retracted"] is not None or _pair_version(pair) > event.version(message.time)
            )
        if isinstance(event, IndividualChecked):
            person = self.individuals.get((event.collection, event.individual_id), {})
            return (person.get(CHECKED) or 0) > event.revision
        return False

    def _restore_after_null(self, message: Message[Event]) -> Iterator[Message[Event]]:
        event = message.event
        assert isinstance(event, KeyErased)
        pair = self.duplicates.get(event.erased_key)
        if pair is not None and pair["retracted"] is None:
            found = DuplicateFound(
                collection=pair["collection"],
                encoder=pair["encoder"],
                a=Member(individual_id=pair["individual_a"], revision=pair["revision_a"]),
                b=Member(individual_id=pair["individual_b"], revision=pair["revision_b"]),
                distance=pair["distance"],
                threshold=pair["threshold"],
            )
            yield replace(message.derive(found, Source.SINK), time=pair["found_at"], context=())
        _, _, who = event.erased_key.partition("/")
        person = self.individuals.get((event.collection, who), {})
        left_out = person.get("duplicates_found")
        if person.get("encoder") is not None and person.get(CHECKED) == person["encoded_revision"]:
            checked = IndividualChecked(
                collection=event.collection,
                individual_id=who,
                revision=person[CHECKED],
                encoder=person["encoder"],
                duplicates=self._pairs_of(event.collection, who) if left_out is None else left_out,
                truncated=left_out is not None,
            )
            yield message.derive(checked, Source.SINK)

    def _pairs_of(self, collection: str, who: str) -> int:
        rows = (row for row in self.duplicates.values() if row["collection"] == collection and not row["retracted"])
        return sum(who in (row["individual_a"], row["individual_b"]) for row in rows)


def _group(guard: str, row: TableRow) -> TableRow:
    """A row with the columns of one group alone."""
    return {name: row[name] for name in ("collection", "individual_id", *_COLUMN_GROUPS[guard])}


def _pair_version(row: TableRow) -> tuple[int, Any]:
    return row["revision_a"] + row["revision_b"], row["found_at"]


def _is_about(row: TableRow, event: IndividualEvent) -> bool:
    """Whether a pair has that person, at a revision up to that of the event."""
    sides = {row["individual_a"]: row["revision_a"], row["individual_b"]: row["revision_b"]}
    revision = sides.get(event.individual_id)
    return row["collection"] == event.collection and revision is not None and revision <= event.revision
