"""`facematch replay` on real servers: what is chosen is there again, each event once, and the pair is found."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from runtime.photo_roots import allow
from schemas.envelope import Message, announce, encode
from schemas.erased import ErasureKey
from schemas.events.base import Event
from schemas.events.encodings import EncodingRejected, RejectionReason
from schemas.events.registrations import IndividualCreated
from schemas.topics import DUPLICATES, ENCODINGS, INDIVIDUALS, REJECTIONS
from tests.encodings import computed
from tests.integration.conftest import MakeWorld
from tests.integration.replays import Run, positions, publish_crowd, registered, runner_of, sent_by
from tests.integration.world import ERASURE_KEY, World

FACE = np.ones(128, dtype=np.float32)
UNAVAILABLE, NO_FACE = RejectionReason.PHOTO_UNAVAILABLE, RejectionReason.NO_FACE


class Store(ThreadingHTTPServer):
    """A photo store on the web, broken until it is repaired."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.folder, self.broken = folder, True
        self.root = f"http://127.0.0.1:{self.server_port}/"


class _Answer(BaseHTTPRequestHandler):
    server: Store

    def do_GET(self) -> None:
        if self.server.broken:
            self.send_error(503)
            return
        photo = (self.server.folder / self.path.strip("/")).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(photo)))
        self.end_headers()
        self.wfile.write(photo)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def store(photos: Path) -> Iterator[Store]:
    with Store(photos) as store:
        thread = threading.Thread(target=store.serve_forever, args=(0.05,))
        thread.start()
        yield store
        store.shutdown()
        thread.join()


@pytest.fixture
def run(world: World, monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner_of(world, monkeypatch)


def test_whom_a_broken_photo_store_kept_out_are_replayed_by_reason_and_the_pair_is_found(
    make_world: MakeWorld, store: Store, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(photo_attempts=1, photo_private_networks=["127.0.0.1/32"])
    allow(world.settings.data_folder, {store.root})
    run = runner_of(world, monkeypatch)
    world.start("encode-cpu", "match", "sink")
    world.submit([("a", f"{store.root}obama.jpg"), ("b", f"{store.root}obama2.jpg")])
    world.submit([("gone", (photos / "gone.jpg").as_uri())])
    world.wait(lambda: world.count("rejected") == 3, "all are rejected")
    chosen = ("--reason", "photo_unavailable", "--since", "1h")

    said = run(*chosen).output
    assert "chosen from individuals: 2" in said
    assert "2: rejected, and tried again" in said
    assert not sent_by(world, INDIVIDUALS), "a dry run sends nothing"

    store.broken = False
    done = run(*chosen, "--yes")
    assert done.exit_code == 0, done.output
    assert "2 sent and acknowledged" in done.output
    world.wait(lambda: world.pairs() == {("a", "b")}, "the pair is found")
    world.wait(lambda: world.count("checked") == 2, "both are checked")
    assert world.states() == dict.fromkeys("ab", ("checked", None)) | {"gone": ("rejected", "photo_not_found")}
    replays = [
        dict(record.headers).get("replay_id")
        for topic in (INDIVIDUALS, ENCODINGS, DUPLICATES)
        for record in (sent_by(world, topic))
    ]
    assert len(set(replays)) == 1, "what follows says which replay it follows from"
    assert len(replays) == 2 + 2 + 3
    assert "chosen from individuals: 0" in run(*chosen).output, "they are encoded by now"


def test_nothing_is_sent_where_one_of_the_individuals_is_unknown(world: World, run: Run) -> None:
    publish_crowd(world, 10)
    refused = run("--individual", "p3", "--individual", "typo", "--yes", "--at-once")
    assert refused.exit_code == 2
    assert "nothing there is about individual typo" in refused.output
    assert sent_by(world, INDIVIDUALS) == []
    assert not (world.settings.data_folder / "replays").exists(), "nor is there anything to resume"


def test_killed_at_any_moment_and_gone_on_with_each_event_is_there_once(world: World, run: Run) -> None:
    count, rate = 3000, 1500
    publish_crowd(world, count)
    originals = {f"individuals/{one.partition}/{one.offset}": one for one in world.read(INDIVIDUALS)}
    command = [sys.executable, "-m", "deploy.cli", "replay", "--yes", "--at-once", "--rate", str(rate)]
    process = subprocess.Popen(command, env={**os.environ, **world.env}, stdout=subprocess.DEVNULL)
    try:
        world.wait(lambda: sum(world.ends(INDIVIDUALS).values()) > count + 300, "it is under way")
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL, "it was at its end already"
    sent = sent_by(world, INDIVIDUALS)
    assert 0 < len(sent) < count
    (replay_id,) = [path.stem for path in (world.settings.data_folder / "replays").glob("*.json")]

    done = run("--resume", replay_id, "--at-once")
    assert done.exit_code == 0, done.output
    again = sent_by(world, INDIVIDUALS, replay_id)
    assert positions(again) == dict.fromkeys(originals, 1)
    for record in again:
        original = originals[next(iter(positions([record])))]
        assert (record.key, record.value, record.partition) == (original.key, original.value, original.partition)
        assert record.headers[: len(original.headers)] == original.headers
    assert "0 sent and acknowledged" in run("--resume", replay_id, "--at-once").output
    assert len(sent_by(world, INDIVIDUALS)) == count


def rejected(of: Message[Event], reason: RejectionReason) -> Message[Event]:
    event = of.event
    assert isinstance(event, IndividualCreated)
    fields = {"collection": event.collection, "individual_id": event.individual_id, "revision": event.revision}
    return of.derive(EncodingRejected(**fields, reason=reason, detail="why", event_id=of.id), "test")


def test_an_outcome_chooses_those_of_whom_it_is_still_true(world: World, run: Run) -> None:
    people = {who: registered(who) for who in ("a", "b", "encoded", "other", "erased", "moved")}
    world.publish(
        [
            *people.values(),
            *(rejected(people[who], NO_FACE) for who in ("a", "b", "encoded", "erased")),
            *(rejected(people[who], UNAVAILABLE) for who in ("other", "b")),
            rejected(registered("expired"), NO_FACE),
            *(announce(computed(who, FACE, encoder="old"), "test") for who in ("encoded", "moved")),
            announce(computed("moved", FACE, encoder="new"), "test"),
            announce(ErasureKey(ERASURE_KEY).erasure_of("c", "erased", 1), "test"),
        ]
    )

    said = run("--reason", "no_face").output
    assert "chosen from individuals: 1" in said, said
    assert "c/a, revision 1" in said
    for why in ("1 erased since", "1 encoded or erased since", "1 more were meant"):
        assert why in said, why
    assert "chosen from individuals: 1" in run("--encoder", "old").output
    assert "c/moved" in run("--encoder", "new").output
    assert "chosen from individuals: 0" in run("--reason", "no_face", "--until", "1h").output
    assert "chosen from encodings: 2" in run("--from", "encodings").output, "the latest of each"

    assert run("--reason", "no_face", "--yes", "--at-once").exit_code == 0
    (sent,) = sent_by(world, INDIVIDUALS)
    assert sent.key == b"c/a"


def test_what_is_written_into_a_file_is_sent_from_it(world: World, run: Run, tmp_path: Path) -> None:
    publish_crowd(world, 12)
    world.publish([announce(computed("a", FACE), "test")])
    path = tmp_path / "chosen.jsonl"
    assert "12 events" in run("--write", str(path)).output
    assert path.stat().st_mode & 0o777 == 0o600
    assert run("--write", str(path)).exit_code == 2, "it is not written over"
    encoding = tmp_path / "encoding.jsonl"
    assert run("--from", "encodings", "--write", str(encoding)).exit_code == 0
    path.write_text(path.read_text() + encoding.read_text())
    assert ": 13; nothing was sent" in run("--from", str(path)).output

    done = run("--from", str(path), "--yes", "--at-once")
    assert done.exit_code == 0, done.output
    sent = sent_by(world, INDIVIDUALS) + sent_by(world, ENCODINGS)
    assert positions(sent) == {f"line/{number}": 1 for number in range(1, 14)}
    originals = {record.key: record for topic in (INDIVIDUALS, ENCODINGS) for record in reversed(world.read(topic))}
    assert all(record.value == originals[record.key].value for record in sent)
    (plan,) = (world.settings.data_folder / "replays").glob("*.json")
    path.write_text(path.read_text() + encoding.read_text())
    changed = run("--resume", plan.stem, "--at-once")
    assert (changed.exit_code, "has changed" in changed.output) == (2, True)


def test_bad_input_is_an_error_that_says_what_to_do_and_nothing_is_sent(
    world: World, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.publish_records([replace(encode(registered("a")), partition=0)])
    world.publish([announce(computed("a", FACE, encoder="old"), "test"), rejected(registered("b"), NO_FACE)])
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"topic": "individuals"}\nno JSON\n')
    (tmp_path / "empty.jsonl").touch()
    future = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    for arguments, message in (
        (("--offsets", "0:1-5"), "the offsets 0 to 0"),
        (("--offsets", "1:0"), "has no records"),
        (("--offsets", "9:0"), "no partition 9: it has 0 to 5"),
        (("--offsets", "all"), "PARTITION:FROM-TO"),
        (("--since", future), "in the future"),
        (("--until", future), "in the future"),
        (("--since", "soon"), "a time"),
        (("--since", "1h", "--until", "2h"), "not before"),
        (("--reason", "no_nose"), "no_face"),
        (("--encoder", "new"), "there are: old"),
        (("--collection", "d"), "there is: c"),
        (("--individual", "x"), "individual x"),
        (("--from", str(broken)), "2 broken lines of 2"),
        (("--from", str(tmp_path / "none.jsonl")), "cannot be read"),
        (("--from", str(tmp_path / "empty.jsonl")), "no events in it"),
        (("--rate", "0"), "more than 0"),
        (("--reason", "no_face", "--encoder", "old"), "choose one"),
        (("--resume", "no-such-id"), "no replay of this data folder"),
        (("--resume", "no-such-id", "--collection", "c"), "--rate and --at-once alone"),
        ((), "nobody is at work for encoder-cpu, matcher, sink"),
    ):
        how = () if "--resume" in arguments else ("--yes", "--at-once") if arguments else ("--yes",)
        result = run(*arguments, *how)
        assert result.exit_code == 2, (arguments, result.output)
        said = " ".join(result.output.replace("│", " ").split())
        assert message in said, (arguments, said)
    monkeypatch.setenv("FACEMATCH_NAMESPACE", "nowhere")
    result = run("--yes")
    assert (result.exit_code, "`facematch setup` has not created" in result.output) == (2, True), result.output
    assert not sent_by(world, INDIVIDUALS) + sent_by(world, ENCODINGS)
    assert not (world.settings.data_folder / "replays").exists()
    assert len(world.read(REJECTIONS)) == 1
