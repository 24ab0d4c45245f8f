"""What cannot be read is recognised, whatever is wrong with it, and nothing of its value leaks."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid5

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from schemas.envelope import Record, UnreadableError, decode, decode_as_sent, encode, kafka_time
from schemas.events.base import Member
from schemas.events.certificates import CompactionCertified
from schemas.events.encodings import EncodingAsSent, EncodingComputed, embeddings_of
from schemas.events.pairs import DuplicateFound, pair_id
from schemas.generate import examples, json_schema
from schemas.identity import uuid_of

CREATED = examples()["IndividualCreated"]
COMPUTED = examples()["EncodingComputed"]
REGISTRATION: dict[str, Any] = json.loads(CREATED.value or b"")
FIELDS: dict[str, Any] = json.loads(COMPUTED.value or b"")


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
        (with_header(CREATED, "ce_id", b"x" * 256), "ce_id has 256 characters, more than 255"),
        (with_header(CREATED, "ce_source", b"x" * 1025), "ce_source has 1025 characters, more than 1024"),
        (replace(examples()["DecisionErased"], key=b"a\0b"), "DecisionErased"),
        (replace(examples()["FindingErased"], key=b"x" * 513), "FindingErased"),
        (with_header(CREATED, "ce_type", b"Birthday"), "Birthday"),
        (with_header(CREATED, "ce_type", b"\xff"), "UTF-8"),
        (with_header(CREATED, "ce_time", b"yesterday"), "ce_time"),
        (with_header(CREATED, "ce_time", b"2026-01-31T09:30:00"), "time zone"),
        (with_header(CREATED, "ce_time", b"9999-12-31T23:59:59-12:00"), "years 1 to 9999"),
        (with_header(CREATED, "ce_time", b"0001-01-01T00:00:00+12:00"), "years 1 to 9999"),
        (with_header(CREATED, "ce_specversion", b"0.3"), "ce_specversion"),
        (with_header(examples()["EncodingErased"], "revision", b"x"), "revision"),
        (replace(examples()["EncodingErased"], value=b"{}"), "null value"),
    ],
)
def test_unreadable_records_say_what_is_wrong(record: Record, problem: str) -> None:
    with pytest.raises(UnreadableError, match=problem):
        decode(record)


@pytest.mark.parametrize(
    "record",
    [
        *(
            with_header(CREATED, f"ce_{name}", b"x" * 500_000)
            for name in ("type", "id", "source", "time", "specversion")
        ),
        replace(CREATED, value=json.dumps({"x" * 500_000: 1}).encode()),
        replace(CREATED, value=json.dumps(REGISTRATION | {"attributes": {"x" * n: [n] for n in range(2000)}}).encode()),
    ],
    ids=str,
)
def test_error_text_is_short_whatever_was_sent(record: Record) -> None:
    """It becomes a header of the dead letter, beside the record as it came."""
    with pytest.raises(UnreadableError) as error:
        decode(record)
    assert len(str(error.value)) < 1000


def test_a_timestamp_of_a_year_that_no_datetime_has_is_the_nearest() -> None:
    assert kafka_time(-1_000_000_000_000_000).year == 1970
    assert kafka_time(2**62).year == 9999
    assert kafka_time(1_769_851_800_123).isoformat() == "2026-01-31T09:30:00.123000+00:00"


def test_error_text_holds_nothing_of_the_value() -> None:
    value = (CREATED.value or b"").replace(b'"revision":1', b'"revision":"top secret"')
    with pytest.raises(UnreadableError) as error:
        decode(replace(CREATED, value=value))
    assert "top secret" not in str(error.value)


def test_what_is_derived_twice_is_the_same_record() -> None:
    message = decode(CREATED)
    event = decode(examples()["EncodingComputed"]).event
    assert message.derive(event, "here") == message.derive(event, "here")
    assert message.derive(event, "here").time == message.time


def test_what_follows_carries_the_trace_and_the_replay_on() -> None:
    context = (("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), ("replay_id", b"r1"))
    message = decode(replace(CREATED, headers=(*CREATED.headers, *reversed(context), ("other", b"x"))))
    encoded = encode(message.derive(decode(examples()["EncodingComputed"]).event, "here"))
    assert decode(encoded).context == context
    assert "other" not in dict(encoded.headers)
    assert decode(CREATED).context == ()


def test_what_is_too_long_to_be_carried_on_stays_behind() -> None:
    for length, carried in ((512, 1), (513, 0), (0, 0)):
        message = decode(replace(CREATED, headers=(*CREATED.headers, ("tracestate", b"a" * length))))
        assert len(message.context) == carried


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


def read(record: Record) -> tuple[object, ...] | None:
    """What a fold needs of it, by `decode`; None if that refuses it."""
    try:
        event = decode(record).event
    except UnreadableError:
        return None
    if not isinstance(event, EncodingComputed):
        return (event,)
    return event.collection, event.individual_id, event.revision, event.encoder, event.embedding.tobytes()


def read_as_sent(record: Record) -> tuple[object, ...] | None:
    """The same without a model for each."""
    try:
        event = decode_as_sent(record)
    except UnreadableError:
        return None
    if not isinstance(event, EncodingAsSent):
        return (event,)
    found = embeddings_of([event.embedding])
    if not sum(len(at.positions) for at in found.values()):
        return None
    ((embedding,),) = (at.embeddings for at in found.values())
    return event.collection, event.individual_id, event.revision, event.encoder, embedding.tobytes()


@pytest.mark.parametrize("numbers", [(), (1e-4,), (1001.0,), (1e18,), (3e38, 3e38)])
def test_an_embedding_of_a_length_that_no_encoder_makes_is_refused_by_every_reader(numbers: tuple[float, ...]) -> None:
    """Half its squared length may be no float32; zeros are what a program has that found no face, and all alike."""
    record = sent(of_numbers(*numbers))
    with pytest.raises(UnreadableError, match=r"length of 0.001 to 1000"):
        decode(record)
    event = decode_as_sent(record)
    assert isinstance(event, EncodingAsSent)
    assert not sum(len(at.positions) for at in embeddings_of([event.embedding]).values())


@pytest.mark.parametrize(
    ("size", "taken"), [(0, False), (252, False), (256, True), (258, False), (1024, True), (4096, True), (4100, False)]
)
def test_an_embedding_has_64_to_1024_numbers_of_4_bytes_for_every_reader(size: int, taken: bool) -> None:
    text = base64.b64encode((np.ones(1025, "<f4") / 32).tobytes()[:size]).decode()
    record = sent(FIELDS | {"embedding": text})
    assert bool(embeddings_of([text])) == taken
    if taken:
        event = decode(record).event
        assert isinstance(event, EncodingComputed)
        assert event.embedding.shape == (size // 4,)
    else:
        with pytest.raises(UnreadableError, match="64 to 1024 numbers"):
            decode(record)


@pytest.mark.parametrize(("size", "fits"), [(252, False), (256, True), (4096, True), (4100, False)])
def test_the_json_schema_bounds_the_length_of_an_embedding(size: int, fits: bool) -> None:
    value = FIELDS | {"embedding": base64.b64encode(bytes(size)).decode()}
    assert jsonschema.Draft202012Validator(json_schema(EncodingComputed)).is_valid(value) == fits


def test_embeddings_are_read_by_their_dimensions_in_their_order() -> None:
    vectors = [np.full(size, number + 1, "<f4") for number, size in enumerate((128, 64, 128, 1024, 64))]
    texts = ["?", *(base64.b64encode(vector.tobytes()).decode() for vector in vectors), "", "AAAA"]
    found = embeddings_of(texts)
    assert {size: at.positions.tolist() for size, at in found.items()} == {128: [1, 3], 64: [2, 5], 1024: [4]}
    for at in found.values():
        for position, embedding in zip(at.positions, at.embeddings, strict=True):
            assert np.array_equal(embedding, vectors[position - 1])


@pytest.mark.parametrize("numbers", [(2e-3,), (1.4,), (999.0,)])
def test_an_embedding_of_a_length_that_an_encoder_makes_is_taken(numbers: tuple[float, ...]) -> None:
    event = decode(sent(of_numbers(*numbers))).event
    assert isinstance(event, EncodingComputed)
    assert np.linalg.norm(event.embedding) == pytest.approx(numbers[0])


def sent(fields: dict[str, Any]) -> Record:
    """An EncodingComputed of those fields, under its own key where it can have one."""
    key = f"{fields.get('collection')}/{fields.get('individual_id')}".encode(errors="replace")
    return replace(COMPUTED, value=json.dumps(fields).encode(), key=key)


def of_numbers(*numbers: float) -> dict[str, Any]:
    """The fields, with an embedding that begins with those numbers."""
    vector = np.zeros(128, "<f4")
    vector[: len(numbers)] = numbers
    return FIELDS | {"embedding": base64.b64encode(vector.tobytes()).decode()}


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-2, 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["cnn", "1", "9", "a\n", "camp-a", "A" * 684, "A" * 683 + "=", "c" * 129, 9.0, 2**63 - 1])
)
VALUES = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.sampled_from(["top", "x"]), SCALARS, max_size=2)
PLACES = [(name,) for name in (*FIELDS, "new")] + [(at, name) for at in ("face", "quality") for name in FIELDS[at]]
HEADERS = [name for name, _ in COMPUTED.headers]
MISSING = object()


def with_field(place: tuple[str, ...], value: object) -> Record:
    """The encoding with another value in one place."""
    fields = FIELDS | {part: dict(FIELDS[part]) for part in ("face", "quality")}
    at = fields if len(place) == 1 else fields[place[0]]
    if value is MISSING:
        at.pop(place[-1], None)
    else:
        at[place[-1]] = value
    return sent(fields)


def with_bytes(at: int, dropped: int, added: bytes) -> Record:
    """The encoding with other bytes in one place."""
    value = COMPUTED.value or b""
    return replace(COMPUTED, value=value[:at] + added + value[at + dropped :])


ONE_FAULT = [
    *(with_field(place, value) for place in PLACES for value in (MISSING, None, "x", -1, 1.5)),
    *(with_header(COMPUTED, name, value) for name in HEADERS for value in (None, b"", b"\xff", b"a\0", b"2026-01-31")),
    with_header(COMPUTED, "ce_type", b"EncodingErased"),
    examples()["EncodingErased"],
    replace(COMPUTED, value=None),
    replace(COMPUTED, value=b"[]"),
    replace(COMPUTED, value=(COMPUTED.value or b"")[:-1] + b',"collection":"camp-b"}'),  # said twice
    replace(COMPUTED, key=None),
    replace(COMPUTED, key=b"camp-a/another"),
    replace(COMPUTED, topic="individuals"),
    sent(of_numbers(float("nan"))),
    sent(of_numbers(-1, float("inf"))),
    sent(of_numbers(3e38, 3e38)),
    sent(FIELDS | {"embedding": FIELDS["embedding"] + "\n"}),
    sent(FIELDS | {"embedding": "é"}),
    sent(FIELDS | {"embedding": [1.0] * 128}),
]


@pytest.mark.parametrize("record", ONE_FAULT, ids=range(len(ONE_FAULT)))
def test_what_is_refused_as_it_was_sent_is_what_decode_refuses(record: Record) -> None:
    assert read_as_sent(record) == read(record)


@settings(max_examples=300)
@given(
    st.builds(with_field, st.sampled_from(PLACES), VALUES)
    | st.builds(with_bytes, st.integers(0, len(COMPUTED.value or b"")), st.integers(0, 2), st.binary(max_size=2))
)
def test_whatever_is_sent_is_read_as_decode_reads_it(record: Record) -> None:
    assert read_as_sent(record) == read(record)


def test_an_encoding_as_sent_has_the_fields_of_the_event() -> None:
    assert EncodingAsSent.__annotations__.keys() == EncodingComputed.model_fields.keys()
    assert read_as_sent(COMPUTED) == read(COMPUTED) is not None
    assert isinstance(decode_as_sent(COMPUTED), EncodingAsSent)
