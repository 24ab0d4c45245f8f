"""`facematch dead-letters` on real servers: shown, put right and sent again, failed again, laid aside."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

import deploy.letters.fix
import deploy.letters.redrive
from deploy.cli import app
from deploy.erasure.topics import Person, TopicSearch
from deploy.letters.report import print_open_letters
from schemas.envelope import Record, announce, decode, encode
from schemas.events.registrations import IndividualCreated, Photo
from schemas.topics import DEAD_LETTERS, INDIVIDUALS, REJECTIONS
from tests.integration.world import World

PATCH = '[{"op": "move", "from": "/id", "path": "/individual_id"}]'
Run = Callable[..., Result]


@pytest.fixture
def run(world: World, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `facematch dead-letters` in this process."""
    for name, value in (world.env | {"COLUMNS": "200"}).items():
        monkeypatch.setenv(name, value)
    return lambda *arguments: CliRunner().invoke(app, ["dead-letters", *arguments])


def created(who: str) -> Record:
    event = IndividualCreated(collection="c", individual_id=who, revision=1, photo=Photo(uri="file:///nowhere.jpg"))
    return replace(encode(announce(event, "test")), partition=0)


def misnamed(who: str) -> Record:
    """Of a registration system that writes `id` where `individual_id` belongs."""
    record = created(who)
    return replace(record, value=(record.value or b"").replace(b'"individual_id"', b'"id"'))


def rejected(world: World) -> set[bytes | None]:
    return {record.key for record in world.read(REJECTIONS)}


def states(run: Run) -> dict[str, str]:
    lines = run("list", "--all", "--json").output.splitlines()
    return {letter["letter"]: letter["state"] for letter in map(json.loads, lines)}


def test_a_letter_is_shown_put_right_sent_again_or_laid_aside(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world.start("encode-cpu")
    garbage = b"\x1b[2J\xff" + bytes(3000)
    wrong = [misnamed("a"), misnamed("b"), replace(created("k"), key=b"k"), replace(created("g"), value=garbage)]
    world.publish_records(wrong)
    world.wait(lambda: len(world.read(DEAD_LETTERS)) == 4, "four letters")
    ids, of_key, of_garbage = ["individuals/0/0", "individuals/0/1"], "individuals/0/2", "individuals/0/3"
    assert states(run) == dict.fromkeys([*ids, of_key, of_garbage], "open")

    shown = run("show", of_garbage)
    assert "\\x1b[2J\\xff\\x00" in shown.output
    assert "not a valid IndividualCreated" in shown.output
    assert "partition 0, offset 3" in shown.output
    assert run("show", of_garbage, "--raw").stdout_bytes == garbage

    # Nothing is sent without --yes, and nothing where one of several is refused.
    before = world.ends(INDIVIDUALS)
    assert "IndividualCreated c/b" in run("redrive", *ids, "--patch", PATCH).output
    refused = run("redrive", *ids, of_garbage, "--patch", PATCH, "--yes")
    assert (refused.exit_code, "1 of 3 are refused" in refused.output) == (2, True)
    assert world.ends(INDIVIDUALS) == before
    assert set(states(run).values()) == {"open"}

    # What a patch makes larger than Kafka takes stays open.
    large = tmp_path / "large.json"
    large.write_text(json.dumps([*json.loads(PATCH), {"op": "add", "path": "/attributes/x", "value": "x" * 1_100_000}]))
    unsent = run("redrive", ids[0], "--patch", f"@{large}", "--yes")
    assert (unsent.exit_code, "is larger than Kafka takes" in unsent.output) == (1, True)
    assert states(run)[ids[0]] == "open"

    # A crash between sending and recording leaves them open: they are sent once more, and nothing changes.
    with monkeypatch.context() as broken:
        broken.setattr(deploy.letters.redrive, "settled_record", lambda _: 1 / 0)
        assert isinstance(run("redrive", *ids, "--patch", PATCH, "--yes").exception, ZeroDivisionError)
    assert sum(world.ends(INDIVIDUALS).values()) == sum(before.values()) + 2
    assert states(run)[ids[0]] == "open"
    choice = ("--reason", "individual_id: field required", "--topic", "individuals", "--since", "1h")
    done = run("redrive", *choice, "--patch", PATCH, "--yes")
    assert "2 sent again" in done.output, done.output
    skipping = run("redrive", of_key, of_garbage, "--rekey", "--skip-refused", "--yes")
    assert "1 sent again" in skipping.output
    world.wait(lambda: rejected(world) == {b"c/a", b"c/b", b"c/k"}, "they are read, and their photos are missed")
    assert states(run) == {ids[0]: "redriven", ids[1]: "redriven", of_key: "redriven", of_garbage: "open"}

    # What fails again is another letter, which counts.
    with monkeypatch.context() as deceived:
        for module in (deploy.letters.fix, deploy.letters.redrive):
            deceived.setattr(module, "decode", lambda _: decode(created("g")))
        assert "1 sent again" in run("redrive", of_garbage, "--yes").output
    world.wait(lambda: len(states(run)) == 5, "it comes back")
    (again,) = [json.loads(line) for line in run("list", "--json").output.splitlines()]
    assert (again["failed"], again["bytes"]) == (2, len(garbage))
    status = io.StringIO()
    print_open_letters(Console(file=status), world.settings)
    assert "dead letters: 1 open" in status.getvalue()

    # What is laid aside stays on record, and is found where somebody is looked for.
    discard = ("discard", "--reason", "json", "--by", "Ana", "--note", "nobody-knows-whose")
    assert "nothing is yet" in run(*discard).output
    assert states(run)[again["letter"]] == "open"
    assert "1 discarded" in run(*discard, "--yes").output
    assert "no such letter" in run("list").output
    shown = run("show", again["letter"])
    assert "by Ana: nobody-knows-whose" in shown.output
    assert "2 times" in shown.output
    assert run("show", again["letter"], "--raw").stdout_bytes == garbage
    nobody = Person("c", "nobody-knows-whose")
    survey = TopicSearch(world.settings, DEAD_LETTERS, [nobody])
    survey.search(lambda _: None)
    assert survey.content(nobody).there == "1 record"
    assert world.restarts() == {}


def test_what_makes_no_sense_is_said(run: Run) -> None:
    for arguments, said in (
        (("show", "individuals/0/9"), "there is no letter individuals/0/9"),
        (("redrive", "nonsense", "--yes"), "there is no letter nonsense"),
        (("redrive", "--yes"), "name letters, or choose them"),
        (("redrive", "individuals/0/9", "--reason", "x"), "one of the two"),
        (("redrive", "--reason", "x", "--patch", "{}"), "no JSON Patch"),
        (("redrive", "--reason", "x", "--patch", "@/nowhere.json"), "No such file"),
        (("redrive", "--reason", "x", "--header", "ce_time"), "NAME=VALUE"),
        (("list", "--since", "2999-01-01"), "is in the future"),
        (("list", "--topic", "nowhere"), "the topics are individuals, "),
        (("discard", "--reason", "x", "--by", "Ana"), "Missing option '--note'"),
    ):
        wrong = run(*arguments)
        assert (wrong.exit_code, said in wrong.output) == (2, True), wrong.output


def test_a_namespace_without_topics_is_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEMATCH_NAMESPACE", "nobody")
    for wrong in (run("list"), CliRunner().invoke(app, ["status"])):
        assert (wrong.exit_code, "`facematch setup` has not created" in wrong.output) == (2, True), wrong.output
