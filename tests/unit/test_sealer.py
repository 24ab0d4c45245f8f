"""What is full is sealed, then saved, in the background and one thing at a time; what goes wrong there is said."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from numpy.typing import NDArray

from schemas.events.encodings import EncodingErased
from schemas.settings import Settings
from streams.checkpoint.manifest import Blob, CompactedSegment, SegmentEntry
from streams.checkpoint.state import State
from streams.gallery.build import build_segment
from streams.gallery.exact import VectorRows
from streams.gallery.gallery import Gallery
from streams.gallery.segment import IndexQuality, Segment
from streams.matcher import sealer as module
from streams.matcher.background import BackgroundThreads
from streams.matcher.sealer import Sealer
from tests.conftest import Clock
from tests.encodings import computed, thresholds_of_tests

Make = Callable[[], NDArray[np.float32]]
LIMIT = 100
DEADLINE_S = 20


class Store:
    """In the place of the checkpoints in Redis."""

    def __init__(self) -> None:
        self.saved: list[State] = []
        self.answers: list[bool | Exception] = []
        self.is_asked, self.may_go_on = threading.Event(), threading.Event()
        self.may_go_on.set()
        self.left: dict[bytes, CompactedSegment] = {}
        self.made: dict[bytes, Segment] = {}

    def load(self, log_end: Callable[[], int]) -> State | None:
        raise AssertionError(f"a sealer loads nothing, of {log_end()} either")

    def compacted(self) -> dict[bytes, CompactedSegment]:
        return self.left

    def take(self, value: bytes, compacted: CompactedSegment) -> Segment | None:
        assert self.left[value] == compacted
        if value not in self.made:
            del self.left[value]
        return self.made.get(value)

    def save(self, state: State, is_ours: Callable[[], bool]) -> bool:
        self.is_asked.set()
        assert self.may_go_on.wait(DEADLINE_S)
        answer = self.answers.pop(0) if self.answers else is_ours()
        if isinstance(answer, Exception):
            raise answer
        if answer:
            self.saved.append(state)
        return answer


class World:
    """A sealer with what it tends."""

    def __init__(self, make: Make, clock: Clock, background: BackgroundThreads | None = None) -> None:
        self.clock = clock
        self.make = make
        self.gallery = Gallery()
        self.store = Store()
        self.position = 0
        settings = Settings(_env_file=None, delta_limit=LIMIT, thresholds=thresholds_of_tests())
        self.sealer = Sealer(
            settings,
            self.gallery,
            self.store,
            saved=0,
            background=background or BackgroundThreads(2),
            clock=self.clock,
        )

    def arrive(self, count: int, collection: str = "c") -> None:
        for _ in range(count):
            self.gallery.apply(computed(f"p{self.position}", self.make(), collection=collection), self.position)
            self.position += 1

    def tend(self) -> None:
        self.sealer.tend(self.position, lambda: True)

    @property
    def is_busy(self) -> bool:
        return self.sealer._under_way is not None

    def wait(self) -> None:
        """Until what is under way is done, whatever comes of it."""
        assert self.sealer._under_way is not None, "nothing was begun"
        self.sealer._under_way.exception(DEADLINE_S)

    def tend_until_idle(self) -> None:
        for _ in range(20):
            self.tend()
            if not self.is_busy:
                return
            self.wait()
        raise AssertionError("it finds something to do again and again")

    def segments(self, collection: str = "c") -> list[int]:
        return [len(segment) for segment in self.gallery.collections[collection].scopes["test"].segments]


@pytest.fixture
def world(embedding: Make, clock: Clock) -> World:
    return World(embedding, clock)


def what_is_asked(monkeypatch: pytest.MonkeyPatch) -> list[IndexQuality | None]:
    """The quality that each segment built from now on is to have at least."""
    asked: list[IndexQuality | None] = []

    def build(rows: VectorRows, threshold: float, floor: float, threads: int, at_least: IndexQuality | None) -> Segment:
        asked.append(at_least)
        return build_segment(rows, threshold, floor, threads, at_least)

    monkeypatch.setattr(module, "build_segment", build)
    return asked


def test_nothing_is_done_of_little(world: World) -> None:
    world.arrive(LIMIT - 1)
    world.tend()
    assert not world.is_busy


def test_a_full_delta_is_sealed_and_adopted_and_then_saved(world: World) -> None:
    world.arrive(LIMIT + 5)
    world.tend_until_idle()
    assert world.segments() == [LIMIT + 5]
    assert world.gallery.living == LIMIT + 5
    last = world.store.saved[-1]
    assert last.offset == LIMIT + 5
    assert [len(segment) for segment in last.scopes[0].segments] == [LIMIT + 5]
    assert len(last.scopes[0].rest.rows.ids) == 0
    world.tend()
    assert not world.is_busy  # once


def test_what_comes_while_it_is_sealed_stays_in_the_delta(world: World) -> None:
    world.sealer._saved = 50
    world.arrive(LIMIT)
    world.tend()
    world.arrive(20)
    world.wait()
    world.tend_until_idle()
    assert world.segments() == [LIMIT]
    assert world.gallery.living == LIMIT + 20
    assert len(world.store.saved[-1].scopes[0].rest.rows.ids) == 20


def test_every_full_delta_is_sealed_and_the_next_builds_on_what_the_last_needed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = what_is_asked(monkeypatch)
    for _ in range(2):
        world.arrive(LIMIT)
        world.arrive(LIMIT + 1, "d")
        world.tend_until_idle()
    assert (world.segments(), world.segments("d")) == ([LIMIT] * 2, [LIMIT + 1] * 2)
    firsts = [world.gallery.collections[name].scopes["test"].segments[0].quality for name in ("c", "d")]
    assert asked == [None, None, *firsts]


def test_a_checkpoint_is_due_when_as_much_has_come_since_the_last(world: World) -> None:
    """Also where nothing is sealed: erasures, or many small collections."""
    for number in range(LIMIT):
        world.arrive(1, f"c{number}")
    world.tend_until_idle()
    assert [state.offset for state in world.store.saved] == [LIMIT]
    world.arrive(LIMIT - 1, "another")
    world.tend()
    assert not world.is_busy
    world.arrive(1, "one-more")
    world.tend_until_idle()
    assert [state.offset for state in world.store.saved] == [LIMIT, 2 * LIMIT]


def test_a_save_that_failed_is_tried_again_only_after_a_pause(world: World) -> None:
    world.arrive(LIMIT)
    world.store.answers = [False]
    world.tend()
    world.wait()
    world.tend_until_idle()  # what is full is sealed meanwhile
    assert world.segments() == [LIMIT]
    assert world.store.saved == []
    world.clock.now += module._PAUSE_AFTER_FAILURE_S - 1
    world.tend()
    assert not world.is_busy
    world.clock.now += 2
    world.tend_until_idle()
    assert [len(state.scopes[0].segments) for state in world.store.saved] == [1]


@pytest.mark.parametrize("where", ["save", "seal"])
def test_what_goes_wrong_in_the_background_is_raised(world: World, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def fail(*_: object) -> Segment:
        raise MemoryError("of the test")

    world.arrive(LIMIT)
    if where == "save":
        world.store.answers = [MemoryError("of the test")]
    else:
        world.sealer._saved = 50
        monkeypatch.setattr(module, "build_segment", fail)
    world.tend()
    world.wait()
    with pytest.raises(MemoryError, match="of the test"):
        world.tend()
    assert world.segments() == []


def test_nothing_is_begun_while_something_is_under_way(world: World) -> None:
    world.store.may_go_on.clear()
    world.arrive(LIMIT)
    world.tend()
    under_way = world.sealer._under_way
    world.arrive(3 * LIMIT)
    for _ in range(5):
        world.tend()
        assert world.sealer._under_way is under_way
    assert world.segments() == []
    world.store.may_go_on.set()
    world.wait()
    assert [state.offset for state in world.store.saved] == [LIMIT]
    world.tend_until_idle()
    assert world.segments() == [4 * LIMIT]


def test_partitions_do_not_seal_at_the_same_time(embedding: Make, clock: Clock) -> None:
    """Each would get half of the cores, and twice the memory would be needed."""
    background = BackgroundThreads(1)
    world, other = World(embedding, clock, background), World(embedding, clock, background)
    for one in (world, other):
        one.arrive(LIMIT)
    world.store.may_go_on.clear()
    world.tend()
    assert world.store.is_asked.wait(DEADLINE_S)
    other.tend()
    assert not other.store.is_asked.wait(0.2)
    world.store.may_go_on.set()
    for one in (world, other):
        one.wait()
        assert [state.offset for state in one.store.saved] == [LIMIT]


def test_whoever_is_without_a_vector_is_put_away(world: World) -> None:
    for offset in range(LIMIT):
        world.gallery.apply(EncodingErased(collection="c", individual_id=f"p{offset}", revision=1), offset)
    world.tend()
    assert world.gallery.collections["c"].lately_absent == {}
    assert sum(map(len, world.gallery.collections["c"].absent)) == LIMIT


def leave(world: World, offset: int, days_from_now: int = 0) -> Segment:
    """What compaction made of the first so many events, in a collection without updates."""
    made_at = datetime.now(UTC) + timedelta(days=days_from_now)
    rows = world.gallery.collections["c"].scopes["test"].delta.living_rows()
    segment = build_segment(rows.chosen(np.flatnonzero(rows.offsets < offset)), 0.45, 0.999, 1)
    entry = SegmentEntry(blob=Blob(id="b", parts={}), rows=len(segment), quality=segment.quality)
    value = f"value {offset}".encode()
    world.store.left.clear()
    world.store.left[value] = CompactedSegment(
        collection="c", encoder="test", offset=offset, made_at=made_at, segment=entry
    )
    world.store.made[value] = segment
    return segment


def test_what_compaction_left_is_taken_over_once_and_saved(world: World) -> None:
    world.arrive(60)
    segment = leave(world, 40)
    world.tend_until_idle()
    scope = world.gallery.collections["c"].scopes["test"]
    assert (scope.segments, len(segment), len(scope.delta), world.gallery.living) == ([segment], 40, 20, 60)
    assert segment.index.num_threads == 2
    assert [state.offset for state in world.store.saved] == [60]
    assert world.store.saved[0].scopes[0].compacted_at is not None
    world.clock.now += 2 * module._LOOKS_EVERY_S
    world.tend()
    assert not world.is_busy
    world.clock.now += 2 * module._LOOKS_EVERY_S
    later = leave(world, 60, days_from_now=1)
    world.tend_until_idle()
    assert scope.segments == [later, segment]  # what it was made of was sealed since the first


def test_what_compaction_made_of_more_than_is_matched_waits(world: World) -> None:
    world.arrive(60)
    segment = leave(world, 60)
    world.position = 59
    world.tend()
    assert not world.is_busy
    world.position = 60
    world.tend()
    assert not world.is_busy  # Redis is not asked all the time
    world.clock.now += module._LOOKS_EVERY_S
    world.tend_until_idle()
    assert world.gallery.collections["c"].scopes["test"].segments == [segment]


def test_what_compaction_left_and_cannot_be_used_changes_nothing(world: World) -> None:
    world.arrive(60)
    leave(world, 40)
    world.store.made.clear()
    world.tend_until_idle()
    assert world.segments() == []
    assert world.gallery.living == 60
    assert world.store.saved == []


def test_a_segment_far_larger_than_a_full_delta_says_nothing_of_what_the_next_needs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.arrive(2 * LIMIT + 1)
    leave(world, 2 * LIMIT + 1)
    world.tend_until_idle()
    asked = what_is_asked(monkeypatch)
    world.arrive(LIMIT)
    world.tend_until_idle()
    assert world.segments() == [2 * LIMIT + 1, LIMIT]
    assert asked == [None]
