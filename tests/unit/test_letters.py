"""Dead letters: what they keep, what is known of each, and what may be sent again."""

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from deploy.commands.app import UserError
from deploy.commands.times import parse_period, parse_time
from deploy.letters.box import LetterFilter, UnknownLetterError, choose, file
from deploy.letters.fix import FixError, FixRefusedError, LetterFix
from deploy.printable import escaped
from schemas.envelope import (
    MOST_HEADER_BYTES,
    MOST_VALUE_BYTES,
    Message,
    Readable,
    StoredRecord,
    UnreadableError,
    decode,
)
from schemas.erased import Erased, ErasureKey
from schemas.generate import examples
from schemas.letters import Letter, LetterOutcome, Settled, dead_letter, read_letter, settled_record
from schemas.topics import DEAD_LETTERS, ESCALATIONS, MOST_LETTER_BYTES, MOST_RECORD_BYTES
from tests.records import stored

CREATED = stored(examples()["IndividualCreated"], partition=3, offset=41, timestamp=17)
FIELDS = json.loads(CREATED.value or b"")


def letter_of(record: StoredRecord, error: str = "why", at: int = 1000, offset: int = 0) -> StoredRecord:
    """The record that a consumer writes of it, as it is read."""
    written = dead_letter(record, UnreadableError(error), "facematch/encoder")
    return stored(written, offset, timestamp=at)


def read(record: StoredRecord) -> Letter:
    letter = read_letter(record)
    assert isinstance(letter, Letter)
    return letter


def of_value(value: bytes | None) -> Letter:
    return read(letter_of(replace(CREATED, value=value)))


def test_dead_letter_keeps_bytes_headers_and_position() -> None:
    record = replace(CREATED, value=b"\x00broken")
    letter = dead_letter(record, UnreadableError("why"), "facematch/encoder")
    headers = dict(letter.headers)
    assert (letter.topic, letter.key, letter.value) == ("dead-letters", record.key, b"\x00broken")
    assert letter.headers[: len(record.headers)] == record.headers
    assert headers["dead_letter_topic"] == b"individuals"
    assert headers["dead_letter_partition"] == b"3"
    assert headers["dead_letter_offset"] == b"41"
    assert headers["dead_letter_error"] == b"why"


def test_of_a_record_too_large_to_be_kept_a_letter_says_where_it_stood_and_what_it_was() -> None:
    value = b"x" * (MOST_LETTER_BYTES + 1)
    letter = read(letter_of(replace(CREATED, value=value)))
    assert letter.name == CREATED.position
    assert letter.record.value is None
    assert letter.record.headers == ()
    assert f"{hashlib.sha256(value).hexdigest()}" in letter.error
    assert letter.error.startswith("why")


def test_whatever_can_be_read_can_be_handed_over_with_its_headers() -> None:
    """To another pool, or as a letter: the topics take more than the most that is read, and what is added."""
    assert MOST_VALUE_BYTES + MOST_HEADER_BYTES <= MOST_LETTER_BYTES < MOST_RECORD_BYTES - 2**16
    for topic in (ESCALATIONS, DEAD_LETTERS):
        assert topic.config["max.message.bytes"] == str(MOST_RECORD_BYTES)
    for record, why in (
        (replace(CREATED, value=b"x" * (MOST_VALUE_BYTES + 1)), "its value has"),
        (replace(CREATED, headers=(*CREATED.headers, ("h", b"x" * MOST_HEADER_BYTES))), "its headers have"),
    ):
        with pytest.raises(UnreadableError, match=why):
            decode(record)


@pytest.mark.parametrize("added", [(), (("dead_letter_topic", b"elsewhere"),), (("dead_letter_settled", b"x"),)])
def test_a_letter_is_read_as_the_message_came(added: tuple[tuple[str, bytes], ...]) -> None:
    """Headers that the sender gave a letter's names, too."""
    record = replace(CREATED, value=b"\x00broken", headers=(*CREATED.headers, *added))
    letter = read(letter_of(record, "é: why"))
    assert letter == Letter(record, "facematch/encoder", "é: why", 1000)
    assert letter.name == "individuals/3/41"


def test_a_letters_headers_are_found_by_their_names_wherever_they_stand() -> None:
    letter = letter_of(CREATED)
    *came, topic, partition, offset, timestamp, consumer, error = letter.headers
    moved = (error, *came, offset, topic, consumer, partition, ("added", b"on the way"), timestamp)
    found = read(replace(letter, headers=moved))
    assert found == replace(read(letter), record=replace(CREATED, headers=(*came, ("added", b"on the way"))))


@pytest.mark.parametrize("name", ["partition", "offset", "timestamp"])
def test_a_letter_whose_position_is_no_number_is_none(name: str) -> None:
    letter = letter_of(CREATED)
    headers = tuple((key, b"x" if key == f"dead_letter_{name}" else value) for key, value in letter.headers)
    assert read_letter(replace(letter, headers=headers)) is None


def test_what_others_wrote_is_no_letter() -> None:
    assert read_letter(replace(CREATED, topic="dead-letters")) is None
    assert read_letter(StoredRecord("dead-letters", None, b"x", (), 0, 0, 0)) is None


def test_what_was_done_stands_behind_the_letter_under_its_name() -> None:
    settled = Settled(letter="individuals/3/41", outcome=LetterOutcome.DISCARDED, by="Ana", note="a test")
    record = settled_record(settled)
    assert (record.topic, record.key) == ("dead-letters", b"individuals/3/41")
    assert read_letter(stored(record)) == settled


def test_a_letter_written_twice_is_one_and_what_was_done_last_counts() -> None:
    other = replace(CREATED, offset=42)
    marks = [
        Settled(letter="individuals/3/41", outcome=outcome)
        for outcome in (LetterOutcome.DISCARDED, LetterOutcome.REDRIVEN)
    ]
    records: list[Readable] = [
        letter_of(CREATED, "first", at=1),
        letter_of(other, at=2),
        *map(settled_record, marks),
        settled_record(Settled(letter="individuals/0/0", outcome=LetterOutcome.DISCARDED)),  # whose letter is gone
        letter_of(CREATED, "again", at=5),  # a consumer that was killed says it once more
    ]
    stood = [stored(record, offset, timestamp=offset) for offset, record in enumerate(records)]
    letters = file(stood)
    assert [(one.name, one.error, one.state, one.offset) for one in letters] == [
        ("individuals/3/42", "why", "open", 1),
        ("individuals/3/41", "again", "redriven", 5),
    ]
    assert [one.name for one in choose(letters, [], LetterFilter())] == ["individuals/3/42"]
    assert [one.name for one in choose(letters, ["individuals/3/41"] * 2, LetterFilter())] == ["individuals/3/41"]
    with pytest.raises(UnknownLetterError, match="individuals/9/9"):
        choose(letters, ["individuals/9/9"], LetterFilter())


def test_letters_are_chosen_by_reason_topic_and_time() -> None:
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    (letter,) = file([letter_of(CREATED, "No CloudEvents envelope", at=int(noon.timestamp() * 1000))])
    second = timedelta(seconds=1)
    for choice, is_chosen in (
        (LetterFilter(), True),
        (LetterFilter(reason="cloudevents ENV"), True),
        (LetterFilter(reason="other"), False),
        (LetterFilter(topic="individuals"), True),
        (LetterFilter(topic="encodings"), False),
        (LetterFilter(since=noon), True),
        (LetterFilter(since=noon + second), False),
        (LetterFilter(until=noon), False),
        (LetterFilter(until=noon + second), True),
    ):
        assert choice.passes(letter) is is_chosen, choice


def test_a_message_is_sent_as_it_came_but_for_the_count() -> None:
    sent = LetterFix().message(of_value(CREATED.value))
    assert (sent.topic, sent.key, sent.value) == (CREATED.topic, CREATED.key, CREATED.value)
    assert sent.headers == (*CREATED.headers, ("redriven", b"1"), ("replay_id", b"redrive"))
    replayed = replace(CREATED, headers=(*CREATED.headers, ("replay_id", b"r7")))
    assert dict(LetterFix().message(read(letter_of(replayed))).headers)["replay_id"] == b"r7"
    assert (sent.partition, sent.partition_by) == (None, None)


def test_a_message_that_fails_again_is_a_letter_that_counts_on() -> None:
    sent = LetterFix().message(of_value(CREATED.value))
    again = letter_of(stored(sent, partition=3, offset=50, timestamp=18))
    (filed,) = file([again])
    assert (filed.name, filed.failed) == ("individuals/3/50", 2)
    thrice = LetterFix().message(read(again))
    assert [value for name, value in thrice.headers if name == "redriven"] == [b"2"]
    nonsense = replace(CREATED, headers=(*CREATED.headers, ("redriven", b"-1")))
    assert read(letter_of(nonsense)).redriven == 0


def test_what_is_partitioned_by_collection_goes_to_its_collection() -> None:
    encoding = stored(examples()["EncodingComputed"], partition=1, offset=2, timestamp=3)
    assert LetterFix().message(read(letter_of(encoding))).partition_by == "camp-a"


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (replace(CREATED, value=b"\x00no json"), "not a valid IndividualCreated"),
        (replace(CREATED, headers=()), "no CloudEvents envelope"),
        (replace(CREATED, key=b"camp-a/another"), "the key of a IndividualCreated is collection/individual_id"),
        (replace(CREATED, topic="encodings"), "encodings does not carry IndividualCreated"),
        (replace(CREATED, topic="nowhere"), "nowhere is no topic of facematch"),
    ],
)
def test_what_would_be_a_letter_again_is_refused(record: StoredRecord, why: str) -> None:
    with pytest.raises(FixRefusedError, match=why):
        LetterFix().message(read(letter_of(record)))


def test_who_was_erased_is_not_sent_again() -> None:
    key = ErasureKey(SecretStr("k" * 32))
    erased = Erased(key)
    when = datetime(2026, 1, 31, tzinfo=UTC)
    letter = of_value(CREATED.value)
    erased.add(Message(key.erasure_of("camp-a", "A-1001", 1), "id", when, "t"))
    with pytest.raises(FixRefusedError, match="erased"):
        LetterFix().message(letter, erased)
    later = of_value(json.dumps(FIELDS | {"revision": 2}).encode())
    assert LetterFix().message(later, erased).value == later.record.value


def test_a_patch_puts_a_value_right() -> None:
    wrong = {("id" if name == "individual_id" else name): value for name, value in FIELDS.items()}
    patch = '[{"op": "move", "from": "/id", "path": "/individual_id"}, {"op": "test", "path": "/revision", "value": 1}]'
    sent = LetterFix.of(patch, [], rekey=False).message(of_value(json.dumps(wrong).encode()))
    assert decode(sent).event == decode(CREATED).event


def test_headers_and_the_key_are_put_right() -> None:
    headers = tuple(header for header in CREATED.headers if header[0] != "ce_time")
    letter = read(letter_of(replace(CREATED, headers=headers, key=b"A-1001")))
    fix = LetterFix.of(None, ["ce_time=2026-01-31T09:30:00+00:00", "ce_source=a=b"], rekey=True)
    sent = fix.message(letter)
    message = decode(sent)
    assert (sent.key, message.source, message.time.hour) == (CREATED.key, "a=b", 9)
    assert len(dict(sent.headers)) == len(sent.headers)


def test_a_null_value_stays_one() -> None:
    erased = stored(examples()["EncodingErased"], partition=1, offset=2, timestamp=3)
    headers = tuple(header for header in erased.headers if header[0] != "revision")
    letter = read(letter_of(replace(erased, headers=headers)))
    with pytest.raises(FixRefusedError, match="a header revision, a whole number"):
        LetterFix().message(letter)
    sent = LetterFix.of(None, ["revision=3"], rekey=False).message(letter)
    assert (sent.value, decode(sent).event) == (None, decode(erased).event)


@pytest.mark.parametrize(
    ("patch", "why"),
    [
        ("", "no JSON Patch"),
        ("{", "no JSON Patch"),
        ('{"op": "remove", "path": "/a"}', "no JSON Patch"),
        ('[{"op": "vanish", "path": "/a"}]', "no JSON Patch"),
        ('[{"op": "remove", "path": "a"}]', "no JSON Patch"),
        ('[{"op": "add", "path": "/a", "value": NaN}]', "no JSON Patch"),
        ('["remove"]', "no JSON Patch"),
    ],
)
def test_what_is_no_patch_is_said(patch: str, why: str) -> None:
    with pytest.raises(FixError, match=why):
        LetterFix.of(patch, [], rekey=False)


def test_what_is_no_header_is_said() -> None:
    for header in ("ce_time", "=x", ""):
        with pytest.raises(FixError, match="NAME=VALUE"):
            LetterFix.of(None, [header], rekey=False)


@pytest.mark.parametrize(
    ("value", "operation", "why"),
    [
        (b"\xff", {"op": "remove", "path": "/a"}, "its value is not JSON"),
        (b"", {"op": "remove", "path": "/a"}, "its value is not JSON"),
        (None, {"op": "remove", "path": "/a"}, "its value is not JSON"),
        (b"[" * 100_000, {"op": "remove", "path": "/a"}, "its value is not JSON"),
        (b'{"a": NaN}', {"op": "remove", "path": "/a"}, "its value is not JSON"),
        (b'{"a": 1e999}', {"op": "add", "path": "/b", "value": 1}, "a number that JSON has not"),
        (b'{"s": "secret"}', {"op": "remove", "path": "/a"}, "operation 1 of the patch, remove /a, does not apply"),
        (b'{"s": "secret"}', {"op": "add", "path": "/s/x/y", "value": 1}, "does not apply"),
        (b'{"s": "secret"}', {"op": "test", "path": "/s", "value": "other"}, "test /s, fails"),
        (b'{"s": "secret"}', {"op": "move", "path": "/a"}, "lacks what RFC 6902 asks of it"),
    ],
)
def test_a_patch_that_does_not_apply_is_refused_and_shows_no_value(
    value: bytes | None, operation: dict[str, object], why: str
) -> None:
    with pytest.raises(FixRefusedError, match=why) as refused:
        LetterFix.of(json.dumps([operation]), [], rekey=False).message(of_value(value))
    assert "secret" not in str(refused.value)


def test_bytes_are_shown_without_what_a_terminal_obeys() -> None:
    assert escaped(b'{"name": "\xc3\xa9"}\n') == '{"name": "é"}\n'
    assert escaped(b"\x1b[2J\xff\r\xe2\x80\xae") == r"\x1b[2J\xff\r\u202e"


def test_a_time_is_a_moment_or_how_long_ago() -> None:
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    for text, expected in (
        ("90s", now - timedelta(seconds=90)),
        ("7d", now - timedelta(days=7)),
        ("2026-01-31", now.replace(hour=0)),
        ("2026-01-31T09:30", now.replace(hour=9, minute=30)),
        ("2026-01-31T09:30+02:00", now.replace(hour=7, minute=30)),
    ):
        assert parse_time("--since", text, now) == expected
    with pytest.raises(UserError, match="in the future"):
        parse_time("--since", "2026-01-31T12:00:01", now)
    for text in ("yesterday", "7w", "", "1000000d"):
        with pytest.raises(UserError, match="a time"):
            parse_time("--since", text, now)
    with pytest.raises(UserError, match="is not before"):
        parse_period("1h", "2h")


def test_fields_that_nobody_here_knows_are_sent_too() -> None:
    value = json.dumps(FIELDS | {"of_theirs": [1.50, "é"]}, ensure_ascii=False).encode()
    assert LetterFix().message(of_value(value)).value == value
