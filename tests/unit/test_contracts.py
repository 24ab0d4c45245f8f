"""Every event through its schema; generated files are as the code says."""

import json
from pathlib import Path

import jsonschema
import pytest
from pydantic import ValidationError

from schemas.envelope import Record, decode, encode
from schemas.events.registrations import IndividualDeleted
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
