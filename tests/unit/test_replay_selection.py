"""What a replay chooses: what was asked for, once each, without those who do not count any more."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr

from producers.replay.chooser import ERASED, REPEATED, SUPERSEDED, UNREADABLE, Answers, Chooser, ChosenEvent
from producers.replay.file import BrokenLineError, FileRecord, line_of, records_in
from producers.replay.interleave import side_by_side
from producers.replay.outcomes import Outcomes
from producers.replay.selection import Offsets, Selection, SelectionError
from producers.replay.sending import POSITION, replayed
from schemas.envelope import REPLAY_ID, Message, Readable, Record, StoredRecord, announce, decode, encode
from schemas.erased import NOBODY, Erased, ErasureKey
from schemas.events.base import Event
from schemas.events.encodings import EncodingErased, EncodingRejected, RejectionReason
from schemas.events.registrations import IndividualCreated, IndividualDeleted, Photo
from tests.encodings import computed
from tests.records import stored

NO_FACE, UNAVAILABLE = RejectionReason.NO_FACE, RejectionReason.PHOTO_UNAVAILABLE
FACE = np.ones(128, dtype=np.float32)


def registered(who: str, revision: int = 1, collection: str = "c") -> Message[Event]:
    photo = Photo(uri="https://photos.example.org/a.jpg")
    return announce(IndividualCreated(collection=collection, individual_id=who, revision=revision, photo=photo), "test")


def in_log(events: Iterable[Message[Event] | Readable]) -> list[StoredRecord]:
    """Records at offsets 0, 1, 2 … of partition 0, at as many seconds past 1970."""
    records = (encode(event) if isinstance(event, Message) else event for event in events)
    return [stored(record, at, timestamp=at * 1000) for at, record in enumerate(records)]


def rejection(of: Message[Event], reason: RejectionReason) -> Message[Event]:
    event = of.event
    assert isinstance(event, IndividualCreated)
    rejected = EncodingRejected(
        collection=event.collection,
        individual_id=event.individual_id,
        revision=event.revision,
        reason=reason,
        detail="why",
        event_id=of.id,
    )
    return of.derive(rejected, "test")


def choose(
    records: Iterable[StoredRecord], erased: Erased = NOBODY, answers: Answers | None = None, **choices: Any
) -> Chooser:
    """A chooser that has seen them."""
    chooser = Chooser(Selection(**choices), erased, answers)
    for record in records:
        chooser.choose(record)
    return chooser


def offsets(records: Iterable[StoredRecord], answers: Answers | None = None, **choices: Any) -> list[int]:
    """Of those that are chosen."""
    chooser = Chooser(Selection(**choices), NOBODY, answers)
    return [record.offset for record in records if chooser.choose(record)]


def test_time_offsets_collection_and_individual_must_all_hold() -> None:
    log = in_log(registered(who, collection=collection) for who in ("a", "b") for collection in ("c", "d", "c-2"))
    assert offsets(log) == [0, 1, 2, 3, 4, 5]
    assert offsets(log, collection="c") == [0, 3]
    assert offsets(log, individuals=("b", "x")) == [3, 4, 5]
    assert offsets(log, offsets=(Offsets(0, 1, 3), Offsets(0, 5, None), Offsets(7, 0, None))) == [1, 2, 5]
    assert offsets(log, since=at(2), until=at(4)) == [2, 3]
    assert offsets(log, since=at(2), collection="d", individuals=("b",)) == [4]


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def test_what_was_replayed_before_is_chosen_once() -> None:
    first = in_log([registered("a"), registered("b")])
    copies = [
        replayed(chosen, "r1") for record in first for chosen in [Chooser(Selection(), NOBODY).choose(record)] if chosen
    ]
    log = in_log([*first, *copies])
    assert offsets(log) == [0, 1]
    assert choose(log).left_out == {REPEATED: 2}
    assert offsets(log, since=at(2)) == [2, 3], "where the original is not chosen the copy is"


def test_the_erased_are_left_out_but_not_their_erasure() -> None:
    key = ErasureKey(SecretStr("k" * 32))
    erased = Erased(key)
    erased.add(announce(key.erasure_of("c", "a", 2), "test"))
    deletion = announce(IndividualDeleted(collection="c", individual_id="a", revision=2), "test")
    chooser = choose(in_log([registered("a"), deletion, registered("a", 3)]), erased)
    assert (chooser.chosen, chooser.left_out) == (2, {ERASED: 1})


def test_what_cannot_be_read_is_left_out() -> None:
    chooser = choose(in_log([Record("individuals", b"c/a", b"?", ()), registered("a")]))
    assert (chooser.chosen, chooser.left_out) == (1, {UNREADABLE: 1})


def test_the_last_rejection_of_the_highest_revision_is_the_outcome() -> None:
    again, better, other = registered("again"), registered("better", 2), registered("other")
    outcomes = Outcomes()
    for record in in_log(
        [
            rejection(again, UNAVAILABLE),
            rejection(again, NO_FACE),
            rejection(better, NO_FACE),
            rejection(registered("better", 1), UNAVAILABLE),
            rejection(other, UNAVAILABLE),
        ]
    ):
        outcomes.add_rejection(record)
    assert {key: one.reason for key, one in outcomes.rejections.items()} == {
        "c/again": NO_FACE,
        "c/better": NO_FACE,
        "c/other": UNAVAILABLE,
    }
    log = in_log([again, registered("again"), better, other])
    wanted = {key: one for key, one in outcomes.rejections.items() if one.reason is NO_FACE}
    assert offsets(log, wanted, reason=NO_FACE) == [0, 2], "the events that the rejections answer, and no others"


def test_who_is_encoded_at_that_revision_or_a_higher_one_is_not_rejected_any_more() -> None:
    outcomes = Outcomes({"c/a", "c/gone"})
    gone = announce(EncodingErased(collection="c", individual_id="gone", revision=5), "test")
    for record in in_log([announce(computed("a", FACE, 3), "test"), announce(computed("b", FACE, 3), "test"), gone]):
        outcomes.add_encoding(record)
    assert [outcomes.is_encoded("c/a", revision) for revision in (2, 3, 4)] == [True, True, False]
    assert outcomes.is_encoded("c/gone", 5)
    assert not outcomes.is_encoded("c/b", 1), "nobody asked for b"
    said = [outcomes.of(*one) for one in (("c/a", 3), ("c/a", 2), ("c/a", 4), ("c/gone", 5))]
    assert said == ["encoded by test", "a later revision is encoded", "no answer yet", "erased"]


def test_of_encodings_the_latest_of_each_is_chosen() -> None:
    """An earlier one would take back what was encoded since, by another encoder, say."""
    encodings = [computed("a", FACE), computed("b", FACE, 2), computed("b", FACE), computed("a", FACE, encoder="new")]
    log = in_log(announce(one, "test") for one in encodings)
    outcomes = Outcomes()
    for record in log:
        outcomes.add_encoding(record)
    assert offsets(log, outcomes.encodings, topic="encodings") == [1, 3]
    assert choose(log, answers=outcomes.encodings, topic="encodings").left_out == {SUPERSEDED: 2}
    new = {key: one for key, one in outcomes.encodings.items() if one.encoder == "new"}
    assert offsets(log, new, topic="encodings", encoder="new") == [3]
    registrations = in_log([registered("a", 2), registered("a"), registered("b")])
    assert offsets(registrations, new, encoder="new") == [1], "the event of the revision that was encoded"


def test_what_is_not_known_at_all_is_an_error() -> None:
    chooser = choose(in_log([registered("a")]), collection="d")
    with pytest.raises(SelectionError, match="collection d; there is: c"):
        chooser.check()
    with pytest.raises(SelectionError, match="individual b"):
        choose(in_log([registered("a")]), individuals=("a", "b")).check()
    choose(in_log([registered("a")]), collection="d", since=at(0)).check()


@pytest.mark.parametrize("text", ["", "3", "3:", "3:5-4", "a:1", "-1:3", "1:2-3-4"])
def test_offsets_that_are_none_are_an_error(text: str) -> None:
    with pytest.raises(SelectionError):
        Offsets.parse(text)


def test_offsets_are_inclusive() -> None:
    found = [Offsets.parse(text) for text in ("3:100-200", "3:100-", "3:100")]
    assert found == [(3, 100, 201), (3, 100, None), (3, 100, 101)]


@pytest.mark.parametrize(
    "choices",
    [
        {"reason": NO_FACE, "encoder": "e"},
        {"reason": NO_FACE, "topic": "encodings"},
        {"file": Path("f"), "offsets": (Offsets(0, 0, None),)},
        {"file": Path("f"), "since": at(1)},
        {"since": at(1), "until": at(1)},
    ],
)
def test_choices_that_contradict_each_other_are_an_error(choices: dict[str, Any]) -> None:
    with pytest.raises(SelectionError):
        Selection(**choices)


def test_a_replayed_event_is_what_it_was_and_says_which_replay_and_from_where() -> None:
    message = registered("a")
    (record,) = in_log([encode(message)])
    record = replace(record, headers=(*record.headers, ("other", b"\xff"), (REPLAY_ID, b"old"), (POSITION, b"old")))
    chosen = Chooser(Selection(), NOBODY).choose(record)
    assert chosen is not None
    again = replayed(chosen, "new")
    assert (again.key, again.value, again.partition) == (record.key, record.value, record.partition)
    assert again.headers == (
        *record.headers[:-2],
        (REPLAY_ID, b"new"),
        (POSITION, b"individuals/0/0"),
    )
    sent = decode(again)
    assert (sent.id, sent.time, sent.source, sent.context) == (
        message.id,
        message.time,
        message.source,
        ((REPLAY_ID, b"new"),),
    )
    follows = encode(sent.derive(computed("a", FACE), "test"))
    assert (REPLAY_ID, b"new") in follows.headers
    assert POSITION not in dict(follows.headers)


def test_records_come_back_from_a_file_as_they_were() -> None:
    erasure = encode(announce(EncodingErased(collection="c", individual_id="ä/\U0001f600", revision=2), "test"))
    odd = encode(registered("b"))
    odd = replace(odd, headers=(*odd.headers, ("raw", b"\xff\xfe"), ("empty", b""), ("null", None)))
    records = [odd, erasure, encode(announce(computed("a", FACE), "test"))]
    found = list(records_in([line_of(record) + "\n" for record in records] + ["\n"]))
    assert found == [
        FileRecord(one.topic, one.key, one.value, one.headers, line) for line, one in enumerate(records, start=1)
    ]
    chosen = [Chooser(Selection(file=Path("f")), NOBODY).choose(one) for one in found if isinstance(one, FileRecord)]
    sent = [replayed(one, "r") for one in chosen if isinstance(one, ChosenEvent)]
    assert [one.partition_by for one in sent] == [None, "c", "c"], "encodings go to the partition of their collection"


def test_lines_that_are_broken_are_named_and_hold_nothing_of_a_photo() -> None:
    good = line_of(encode(registered("a")))
    secret = line_of(encode(registered("a"))).replace("photos.example.org", "secret\\u0000")
    lines = ["", good, "{", "[]", '{"topic": "x", "key": "", "headers": [], "value": ""}', good[:-1], secret, good]
    lines.append(good.replace('"headers": [[', '"headers": [3, ['))
    found = list(records_in(lines))
    assert [number for number, one in enumerate(found) if isinstance(one, FileRecord)] == [0, 6]
    broken = [str(one) for one in found if isinstance(one, BrokenLineError)]
    assert [text.partition(":")[0] for text in broken] == [f"line {number}" for number in (3, 4, 5, 6, 7, 9)]
    assert "secret" not in " ".join(broken)


def test_partitions_take_turns_and_each_stays_in_order() -> None:
    batches = [
        [StoredRecord("individuals", b"", bytes(1000), (), partition, at, 0) for at in range(start, start + 500)]
        for start in range(0, 6000, 500)
        for partition in (0, 1)
    ]
    batches.sort(key=lambda batch: batch[0].offset // 1500)  # runs of one partition
    found = list(side_by_side(batches))
    assert len(found) == 12_000
    for partition in (0, 1):
        assert [one.offset for one in found if one.partition == partition] == list(range(6000))
    assert abs(sum(one.partition for one in found[:4000]) - 2000) < 200
