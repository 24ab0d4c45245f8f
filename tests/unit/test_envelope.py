"""What cannot be read is recognised, whatever is wrong with it, and nothing of its value leaks."""

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID, uuid5

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from schemas.envelope import Record, UnreadableError, dead_letter, decode
from schemas.events import CompactionCertified, DuplicateFound, EncodingComputed, Member, pair_id
from schemas.generate import examples
from schemas.identity import uuid_of

CREATED = examples()["IndividualCreated"]


def with_header(record: Record, name: str, value: bytes | None) -> Record:
    kept = tuple(header for header in record.headers if header[0] != name)
    return replace(record, headers=kept if value is None else (*kept, (name, value)))


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (replace(CREATED, value=b"no json"), "Invalid JSON"),
        (replace(CREATED, value=b"\xff\xfe"), "IndividualCreated"),
        (replace(CREATED, value=None), "no value"),
        (replace(CREATED, value=b"{}"), "collection: Field required"),
        (replace(CREATED, value=b"[]"), "IndividualCreated"),
        (replace(CREATED, value=(CREATED.value or b"").replace(b'"revision":1', b'"revision":-1')), "revision"),
        (replace(CREATED, value=(CREATED.value or b"").replace(b"H-77", b"\\u0000")), "attributes"),
        (replace(CREATED, key=b"camp-a/another"), "the key"),
        (replace(CREATED, headers=()), "no CloudEvents envelope"),
        (replace(CREATED, topic="encodings"), "does not carry"),
        (with_header(CREATED, "ce_id", None), "ce_id"),
        (with_header(CREATED, "ce_id", b"a\0b"), "NUL"),
        (with_header(CREATED, "ce_type", b"Birthday"), "Birthday"),
        (with_header(CREATED, "ce_type", b"\xff"), "UTF-8"),
        (with_header(CREATED, "ce_time", b"yesterday"), "ce_time"),
        (with_header(CREATED, "ce_time", b"2026-01-31T09:30:00"), "time zone"),
        (with_header(CREATED, "ce_specversion", b"0.3"), "ce_specversion"),
        (with_header(examples()["EncodingErased"], "revision", b"x"), "revision"),
        (replace(examples()["EncodingErased"], value=b"{}"), "null value"),
    ],
)
def test_unreadable_records_say_what_is_wrong(record: Record, problem: str) -> None:
    with pytest.raises(UnreadableError, match=problem):
        decode(record)


def test_error_text_holds_nothing_of_the_value() -> None:
    value = (CREATED.value or b"").replace(b'"revision":1', b'"revision":"top secret"')
    with pytest.raises(UnreadableError) as error:
        decode(replace(CREATED, value=value))
    assert "top secret" not in str(error.value)


def test_dead_letter_keeps_bytes_headers_and_position() -> None:
    record = replace(CREATED, value=b"\x00broken", partition=3, offset=41, timestamp=17)
    letter = dead_letter(record, UnreadableError("why"), "facematch/encoder")
    headers = dict(letter.headers)
    assert (letter.topic, letter.key, letter.value) == ("dead-letters", record.key, b"\x00broken")
    assert letter.headers[: len(record.headers)] == record.headers
    assert headers["dead_letter_topic"] == b"individuals"
    assert headers["dead_letter_partition"] == b"3"
    assert headers["dead_letter_offset"] == b"41"
    assert headers["dead_letter_error"] == b"why"


def test_what_is_derived_twice_is_the_same_record() -> None:
    message = decode(CREATED)
    event = decode(examples()["EncodingComputed"]).event
    assert message.derive(event, "here") == message.derive(event, "here")
    assert message.derive(event, "here").time == message.time


def test_pair_id_does_not_depend_on_the_order_and_tells_all_else_apart() -> None:
    ids = {
        pair_id("c", "e", "1", "2"),
        pair_id("c2", "e", "1", "2"),
        pair_id("c", "e2", "1", "2"),
        pair_id("c", "e", "1", "3"),
        pair_id("c", "e", "1,2", ""),
    }
    assert len(ids) == 5
    assert pair_id("c", "e", "2", "1") == pair_id("c", "e", "1", "2")


def test_an_id_is_a_uuid_of_version_5() -> None:
    namespace = UUID("5ba1b2c8-3a3c-5c0e-9d5e-0f5b6c1d7a10")
    for name in ("", "c/é-1", '["c","e","1","2"]'):
        assert uuid_of(namespace, name) == str(uuid5(namespace, name))


def test_a_pair_has_two_individuals_in_order() -> None:
    a, b = Member(individual_id="1", revision=1), Member(individual_id="2", revision=1)
    DuplicateFound(collection="c", encoder="e", a=a, b=b, distance=0.1, threshold=0.45)
    for wrong in ((b, a), (a, a)):
        with pytest.raises(ValueError, match="smaller id first"):
            DuplicateFound(collection="c", encoder="e", a=wrong[0], b=wrong[1], distance=0.1, threshold=0.45)


def test_embedding_survives_the_wire_bit_by_bit(embedding: Callable[[], NDArray[np.float32]]) -> None:
    event = decode(examples()["EncodingComputed"]).event
    assert isinstance(event, EncodingComputed)
    sent = event.model_copy(update={"embedding": embedding()})
    received = EncodingComputed.model_validate_json(sent.model_dump_json())
    assert received.embedding.tobytes() == sent.embedding.tobytes()


@pytest.mark.parametrize("text", ["", "AAAA", "*" * 684, 5])
def test_what_is_no_embedding_is_refused(text: object) -> None:
    event = decode(examples()["EncodingComputed"]).event
    with pytest.raises(ValueError, match="embedding"):
        EncodingComputed.model_validate({**event.model_dump(), "embedding": text})


def test_nan_is_no_embedding(embedding: Callable[[], NDArray[np.float32]]) -> None:
    broken = embedding()
    broken[5] = np.nan
    event = decode(examples()["EncodingComputed"]).event
    with pytest.raises(ValueError, match="finite"):
        EncodingComputed.model_validate({**event.model_dump(), "embedding": broken})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("certificate_id", "-" * 36),
        ("people", 2**70),
        ("checksum", "a\0"),
        ("seconds", {"read\0ing": 1.0}),
        ("seconds", {"reading": float("nan")}),
        ("memory_mb", float("inf")),
        ("began_at", "2026-01-31T09:30:00"),
    ],
)
def test_no_certificate_is_accepted_that_postgres_would_refuse(field: str, value: object) -> None:
    right = decode(examples()["CompactionCertified"]).event.model_dump()
    CompactionCertified.model_validate(right)
    with pytest.raises(ValidationError):
        CompactionCertified.model_validate(right | {field: value})
