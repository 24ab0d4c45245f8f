"""Shards: what is one, and that the reports of several about one individual do not meet."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from deploy.cli import app
from schemas.envelope import UnreadableError, announce, decode, encode
from schemas.events.pairs import IndividualChecked
from schemas.generate import examples
from schemas.shard import Shard
from schemas.topics import CPU_POOL, MATCHER, matcher_of, shard_of

WRONG = [
    "",
    "x",
    "2",
    "2/",
    "/8",
    "0/8",
    "9/8",
    "-1/8",
    "2/8/9",
    " 2/8",
    "1.0/8",
    "1/0",
    "1/1001",
    "²/8",
    "1/" + "9" * 5000,
]


def checked(shard: Shard) -> IndividualChecked:
    return IndividualChecked(
        collection="c", individual_id="i", revision=1, encoder="e", duplicates=0, shard=shard.number, shards=shard.count
    )


@pytest.mark.parametrize("text", ["1/1", "1/8", "2/8", "8/8", "1000/1000"])
def test_a_shard_is_what_its_text_says(text: str) -> None:
    assert str(Shard.parse(text)) == text


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_shard_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="no shard: one of 8 is written 1/8, 2/8 … 8/8"):
        Shard.parse(text)


@pytest.mark.parametrize("text", ["0/8", "9/8", "x"])
def test_the_command_line_refuses_what_is_no_shard_with_status_2(text: str) -> None:
    done = CliRunner().invoke(app, ["match", "--shard", text])
    assert done.exit_code == 2
    assert "no shard: one of 8 is written 1/8" in done.output


def test_the_keys_of_all_shards_differ_and_the_only_ones_is_the_individuals() -> None:
    shards = [Shard(number, count) for count in (1, 2, 3, 11) for number in range(1, count + 1)]
    keys = [checked(shard).key for shard in shards]
    assert keys[0] == "c/i"
    assert keys[1] == "@1/2/c/i"
    assert len(set(keys)) == len(shards)


def test_a_report_of_a_shard_survives_the_wire_and_needs_its_own_key() -> None:
    record = encode(announce(checked(Shard(2, 8)), "test"))
    assert decode(record).event == checked(Shard(2, 8))
    with pytest.raises(UnreadableError, match="is @shard/shards/collection/individual_id"):
        decode(replace(record, key=b"c/i"))


def test_a_report_of_an_impossible_shard_is_unreadable() -> None:
    record = encode(announce(checked(Shard(2, 8)), "test"))
    assert record.value is not None
    with pytest.raises(UnreadableError, match="9/8 is no shard"):
        decode(replace(record, value=record.value.replace(b'"shard":2', b'"shard":9')))


def test_a_report_from_before_there_were_shards_is_read_as_of_the_only_one() -> None:
    record = examples()["IndividualChecked"]
    assert record.value is not None
    old = {
        name: value for name, value in json.loads(record.value).items() if name not in ("shard", "shards", "truncated")
    }
    event = decode(replace(record, value=json.dumps(old).encode())).event
    assert event == decode(record).event
    assert isinstance(event, IndividualChecked)
    assert (event.shard, event.shards, event.truncated) == (1, 1, False)


def test_every_shard_has_a_consumer_group_of_its_own() -> None:
    assert matcher_of(Shard()) is MATCHER
    assert matcher_of(Shard(2, 8)).name == "matcher-2-of-8"
    assert matcher_of(Shard(2, 8)).reads == MATCHER.reads
    for shard in (Shard(), Shard(2, 8), Shard(1000, 1000)):
        assert shard_of(matcher_of(shard).name) == shard
    for other in (CPU_POOL.name, "matcher-2", "matcher-x-of-8", "matcher-2-of-8-9", "matcher-9-of-8"):
        assert shard_of(other) is None
