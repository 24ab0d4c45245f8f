"""Whoever adds an event touches four places, and is told which one was forgotten.

1. its class in `schemas/events/`, which says its key, the rule of the key, and whom it is about;
2. the topic in `schemas/topics.py` that carries it;
3. its example in `schemas/generate.py`;
4. its rows in `consumers/sink/rows.py`, or that it has none.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest

import schemas.events
from consumers.sink.rows import rows_of
from schemas.envelope import announce, decode, encode
from schemas.events.base import Event
from schemas.generate import examples
from schemas.topics import EVENT_TYPES, SINK, TOPICS

EVENTS = pytest.mark.parametrize("event_type", EVENT_TYPES.values(), ids=EVENT_TYPES)


def classes(base: type[Event] = Event) -> Iterator[type[Event]]:
    """The event classes of `schemas.events` that have no subclass there."""
    for one in base.__subclasses__():
        if one.__module__.startswith("schemas."):
            yield from classes(one)
    if base.__module__.startswith("schemas.") and not any(
        one.__module__.startswith("schemas.") for one in base.__subclasses__()
    ):
        yield base


def named_in(value: Any) -> set[str]:
    """Ids of individuals anywhere in an event's fields."""
    if isinstance(value, dict):
        ids = {value[name] for name in ("individual_id", "a", "b") if isinstance(value.get(name), str)}
        return ids.union(*map(named_in, value.values()))
    return set().union(*map(named_in, value)) if isinstance(value, list) else set()


def test_1_a_class_that_does_not_say_its_key_and_its_subjects_is_refused() -> None:
    class Forgetful(Event):
        pass

    with pytest.raises(TypeError, match=r"abstract methods key, key_rule, subjects"):
        Forgetful(collection="c")  # type: ignore[abstract] # that is what the test is about


@EVENTS
def test_1_every_event_says_its_key_and_its_subjects(event_type: type[Event]) -> None:
    forgotten: frozenset[str] = getattr(event_type, "__abstractmethods__", frozenset())
    assert not forgotten, f"{event_type.__name__} does not say: {', '.join(sorted(forgotten))}"


@EVENTS
def test_1_an_event_names_nobody_who_is_not_among_its_subjects(event_type: type[Event]) -> None:
    """Else somebody who was erased would come back by it."""
    event = decode(examples()[event_type.__name__]).event
    subjects = {one.individual_id for one in event.subjects()}
    assert subjects == named_in(event.model_dump(mode="json")), f"{event_type.__name__}.subjects leaves somebody out"


@EVENTS
def test_1_an_event_with_a_null_value_is_read_as_it_was_written(event_type: type[Event]) -> None:
    event = decode(examples()[event_type.__name__]).event
    record = encode(announce(event, "test"))
    assert (record.value is None) == bool(event_type.NULL_HEADERS) == bool(event_type.NULL_NEEDS)
    assert decode(record).event.model_dump_json() == event.model_dump_json()


def test_2_every_event_class_is_carried_by_a_topic() -> None:
    for module in pkgutil.iter_modules(schemas.events.__path__, "schemas.events."):
        importlib.import_module(module.name)
    forgotten = {one.__name__ for one in classes()} - EVENT_TYPES.keys()
    assert not forgotten, f"no topic in schemas/topics.py carries {', '.join(sorted(forgotten))}"


@EVENTS
def test_3_every_event_has_an_example(event_type: type[Event]) -> None:
    assert event_type.__name__ in examples(), f"schemas/generate.py has no example of {event_type.__name__}"


@pytest.mark.parametrize("name", sorted({one.__name__ for topic in SINK.reads for one in topic.carries}))
def test_4_the_sink_knows_the_rows_of_every_event_that_it_reads(name: str) -> None:
    rows_of([(decode(examples()[name]), 0)])


def test_4_an_event_of_which_nobody_has_said_which_rows_it_has_is_named() -> None:
    class Unheard(Event):
        @property
        def key(self) -> str:
            return "k"

        @property
        def key_rule(self) -> str:
            return "always k"

        def subjects(self) -> tuple[()]:
            return ()

    with pytest.raises(TypeError, match="Unheard"):
        rows_of([(announce(Unheard(collection="c"), "test"), 0)])


def test_every_event_that_is_carried_is_read_by_the_sink() -> None:
    """But for what only passes between the pools."""
    read = {one for topic in SINK.reads for one in topic.carries}
    assert {one for topic in TOPICS for one in topic.carries} == read
