"""What must be true during a run, and what must have come out at its end."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

from schemas.events.base import individual_key
from schemas.events.encodings import EncodingComputed, EncodingErased
from schemas.events.pairs import DuplicateFound, IndividualChecked, KeyErased
from schemas.topics import DEAD_LETTERS, DUPLICATES
from streams.checkpoint.manifest import Manifest
from streams.gallery.gallery import Gallery
from tests import oracle
from tests.encodings import EncodingEvent
from tests.oracle import Pair
from tests.simulation.events import THRESHOLD
from tests.simulation.parts import MemoryTopic

if TYPE_CHECKING:
    from tests.simulation.world import World

_MATCHED, _MANIFEST = "s:{1/1:0}:matched", "s:{1/1:0}:manifest"
_SAME = 1e-6
K = TypeVar("K")


class Invariants:
    """Holds in each round: progress grows, and stands for what is published; no checkpoint is ahead of it, or lost."""

    def __init__(self, world: "World") -> None:
        self.matched = 0  # the highest progress there ever was
        # Ends of both topics: below that of `encodings` all was matched, and what was published again because of it.
        self.a_day_ago = 0, 0
        self._ends: list[tuple[int, tuple[int, int]]] = []  # of the log, when progress came to an offset
        self._world = world
        self._latest: dict[str, EncodingEvent] = {}
        self._checked: set[tuple[str, int]] = set()
        self._findings = 0
        self._before = 0
        self._manifest: object = None
        self._has_lost = False

    def redis_was_lost(self) -> None:
        """What Redis has may be older from now on."""
        self._before, self._has_lost = 0, True

    def check(self) -> None:
        """Raises AssertionError."""
        values = self._world.redis.values
        value, manifest = values.get(_MATCHED, b"0"), values.get(_MANIFEST)
        assert isinstance(value, bytes)
        matched = int(value)
        assert matched >= self._before, f"progress went back from {self._before} to {matched}"
        self._before = matched
        if matched > self.matched:
            self._check_published(matched)
            self.matched = matched
            published = self._world.topics[DUPLICATES.name].end
            self._ends.append((self._world.encodings.end, (matched, published)))
            while self._ends and self._ends[0][0] <= matched:
                self.a_day_ago = self._ends.pop(0)[1]
        if manifest is None and not self._has_lost:
            assert self._manifest is None, "a checkpoint was removed, of which Redis has lost nothing"
        if manifest is not self._manifest and isinstance(manifest, bytes):
            offset = Manifest.from_bytes(manifest).offset
            assert offset <= self.matched, f"a checkpoint of {offset}, and {self.matched} is matched"
        self._manifest = manifest

    def _check_published(self, matched: int) -> None:
        """Everybody who is the latest below that offset was said to be checked."""
        messages = self._world.topics[DUPLICATES.name].messages
        events = (message.event for message in messages[self._findings :])
        self._checked |= {(one.key, one.revision) for one in events if isinstance(one, IndividualChecked)}
        self._findings = len(messages)
        changed = set()
        for event in encodings(self._world.encodings)[self.matched : matched]:
            if event.key not in self._latest or oracle.rank(event) >= oracle.rank(self._latest[event.key]):
                self._latest[event.key] = event
                changed.add(event.key)
        for event in map(self._latest.__getitem__, changed):
            if isinstance(event, EncodingComputed) and not self._world.registry.covers(
                event.collection, event.individual_id, event.revision
            ):
                is_checked = (event.key, event.revision) in self._checked
                assert is_checked, f"progress is {matched}, and {event.key} of {event.revision} is not checked"


def encodings(topic: MemoryTopic) -> list[EncodingEvent]:
    """All that ever stood on `encodings`."""
    return [
        event for event in (m.event for m in topic.messages) if isinstance(event, EncodingComputed | EncodingErased)
    ]


def problems_of(world: "World", galleries: Iterable[Gallery]) -> Iterator[str]:
    """In what the tables, the topics and galleries differ from what the oracle says, at the end of a run."""
    events = encodings(world.encodings)
    latest, living = oracle.latest(events), oracle.living(events)
    pairs = oracle.pairs(living.values(), THRESHOLD)
    revisions = {key: event.revision for key, event in living.items()}
    duplicates = world.topics[DUPLICATES.name]

    yield from _differences("pairs in the tables", _pairs_in(world), pairs)
    checked = {individual_key(*who): row.get("checked_revision") for who, row in world.tables.individuals.items()}
    yield from _differences("people checked in the tables", checked, revisions)
    encoded = {individual_key(*who): row.get("encoded_revision") for who, row in world.tables.individuals.items()}
    yield from _differences("people encoded in the tables", encoded, revisions)
    for where, offsets in (("ever", range(duplicates.end)), ("still", duplicates.records)):
        messages = {duplicates.history[offset].key: duplicates.messages[offset] for offset in offsets}
        last = [message.event for message in messages.values()]
        found = {oracle.pair_of(e): e.distance for e in last if isinstance(e, DuplicateFound)}
        yield from _differences(f"pairs that `duplicates` {where} has", found, pairs)
        # Of who was erased and came back, the sink puts the check back if it knows the encoding; else compaction does.
        nulls = {event.key for event in last if isinstance(event, KeyErased)}
        said = {event.key: event.revision for event in last if isinstance(event, IndividualChecked)}
        expected = {key: revision for key, revision in revisions.items() if key not in nulls}
        yield from _differences(f"checks that `duplicates` {where} has", {k: said.get(k) for k in expected}, expected)
    kept = {event.key: event for event in events}
    yield from _differences("last records of `encodings`", _ranks(kept), _ranks(latest))
    for gallery in galleries:
        yield from _differences("people in a gallery", {"living": gallery.living}, {"living": len(living)})
    if letters := world.topics[DEAD_LETTERS.name].history:
        yield f"dead letters: {letters}"


def _ranks(events: dict[str, EncodingEvent]) -> dict[str, tuple[int, bool]]:
    return {key: oracle.rank(event) for key, event in events.items()}


def _pairs_in(world: "World") -> dict[Pair, float]:
    rows = [row for row in world.tables.duplicates.values() if row["retracted"] is None]
    columns = ("collection", "encoder", "individual_a", "revision_a", "individual_b", "revision_b")
    return {Pair(*(row[name] for name in columns)): row["distance"] for row in rows}


def _differences(what: str, found: Mapping[K, object], expected: Mapping[K, object]) -> Iterator[str]:
    for key in sorted(found.keys() | expected.keys(), key=str):
        one, other = found.get(key), expected.get(key)
        is_same = abs(one - other) < _SAME if isinstance(one, float) and isinstance(other, float) else one == other
        if not is_same:
            yield f"{what}: {key} is {one}, and should be {other}"
