"""Every event through its schema; generated files are as the code says."""

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from pydantic import ValidationError

from schemas.envelope import Message, Record, UnreadableError, decode, encode
from schemas.events.base import Event
from schemas.events.registrations import IndividualCreated, IndividualDeleted
from schemas.generate import FOLDER, asyncapi, examples, files, json_schema
from schemas.topics import EVENT_TYPES, TOPICS, topic_of


@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_generated_file_is_not_stale(path: Path) -> None:
    assert path.read_text() == files()[path], "run `make generate` and commit what changes"


def test_no_generated_file_is_left_over() -> None:
    there = {*FOLDER.glob("json/*"), *FOLDER.glob("examples/*")}
    assert there <= set(files())


def test_every_event_has_an_example() -> None:
    assert set(examples()) == set(EVENT_TYPES)


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_example_fits_its_json_schema(name: str) -> None:
    record = examples()[name]
    value = None if record.value is None else json.loads(record.value)
    jsonschema.Draft202012Validator(json_schema(EVENT_TYPES[name])).validate(value)


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_what_is_encoded_decodes_to_the_same(name: str) -> None:
    record = examples()[name]
    message = decode(record)
    assert type(message.event).__name__ == name
    assert encode(message) == record


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_every_field_says_what_it_means(name: str) -> None:
    for field, schema in EVENT_TYPES[name].model_fields.items():
        known = schema.description or field in {"a", "b", "face", "embedding"}  # their types say it
        assert known, f"{name}.{field} has no description"


def test_asyncapi_has_every_topic_and_every_event() -> None:
    document = asyncapi()
    assert set(document["channels"]) == {topic.name for topic in TOPICS}
    assert set(document["components"]["messages"]) == set(EVENT_TYPES)
    for name in EVENT_TYPES:
        assert name in document["channels"][topic_of(EVENT_TYPES[name]).name]["messages"]


def test_repr_of_a_record_holds_no_value() -> None:
    assert "secret" not in repr(Record("individuals", b"c/i", b"secret"))


@pytest.mark.parametrize(
    "who", ["a\x9b31m", "a\x00", "a\nb", "a\u2028b", "a\u2029b", "\u202egpj", "\u2066a", "a\u200f", "\u061ca"]
)
def test_an_id_that_a_terminal_or_a_reader_would_obey_is_refused(who: str) -> None:
    with pytest.raises(ValidationError):
        IndividualDeleted(collection="c", individual_id=who, revision=1)
    schema = json_schema(IndividualDeleted)
    value = {"collection": "c", "individual_id": who, "revision": 1}
    assert not jsonschema.Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize("who", ["A-1001", "José", "می\u200cخواهم", "क\u094d\u200dष", "部 屋"])
def test_an_id_in_any_script_is_taken(who: str) -> None:
    assert IndividualDeleted(collection="c", individual_id=who, revision=1).individual_id == who


def created(**fields: object) -> Message[Event]:
    value = {"collection": "c", "individual_id": "a", "revision": 1, "photo": {"uri": "file:///a.jpg"}} | fields
    example = examples()["IndividualCreated"]
    return decode(replace(example, key=b"c/a", value=json.dumps(value).encode()))


@pytest.mark.parametrize(
    ("value", "kept"), [(7, "7"), (1.5, "1.5"), (True, "true"), ("seven", "seven"), (2**80, str(2**80))]
)
def test_a_number_among_the_attributes_is_kept_as_text(value: object, kept: str) -> None:
    event = created(attributes={"age": value}).event
    assert isinstance(event, IndividualCreated)
    assert event.attributes == {"age": kept}
    fields = json.loads(encode(created()).value or b"") | {"attributes": {"age": value}}
    jsonschema.Draft202012Validator(json_schema(IndividualCreated)).validate(fields)


@pytest.mark.parametrize("value", [None, ["a"], {"a": 1}, "a\x00b"])
def test_an_attribute_that_is_no_single_value_is_refused(value: object) -> None:
    with pytest.raises(UnreadableError):
        created(attributes={"age": value})
    fields = json.loads(encode(created()).value or b"") | {"attributes": {"age": value}}
    assert not jsonschema.Draft202012Validator(json_schema(IndividualCreated)).is_valid(fields)


@pytest.mark.parametrize(("value", "revision"), [(1.0, 1), (1e2, 100), (2.0**53, 2**53)])
def test_a_revision_that_is_written_with_a_decimal_point_is_that_whole_number(value: float, revision: int) -> None:
    event = created(revision=value).event
    assert isinstance(event, IndividualCreated)
    assert event.revision == revision
    assert type(event.revision) is int


@pytest.mark.parametrize("value", [1.5, 0.0, -1.0, 2.0**54, "1", True, None])
def test_a_revision_that_is_no_whole_number_is_refused(value: object) -> None:
    with pytest.raises(UnreadableError):
        created(revision=value)
