"""A server is gone for a while: workers wait and go on by themselves, and nothing is lost."""

import signal
import threading
from pathlib import Path

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from deploy.cli import app
from runtime.process.stopping import STOP_WITHIN_S
from runtime.servers import postgres
from tests.integration.conftest import MakeWorld
from tests.integration.faces import make_faces

WORKERS = ("encode-cpu", "encode-gpu", "match", "sink")


def outage(make_world: MakeWorld, photos: Path, folder: Path, server: str, seconds: float) -> None:
    """Submit, take the server away in the middle, and see every submission come out with the right pairs."""
    files = make_faces(photos, folder, 20)
    world = make_world(threshold=0.08)
    world.start(*WORKERS)
    half = [(f"person-{number}", files[number % 20].as_uri()) for number in range(60)]
    world.submit(half)
    world.wait(lambda: world.count("checked") >= 10, "10 checked before the outage")
    child = world.stack.supervisor.children[server]
    child.stop()
    if server != "kafka":  # registration systems go on meanwhile
        world.submit([(f"late-{number}", files[number].as_uri()) for number in range(20)])
    threading.Event().wait(seconds)  # the outage itself
    child.start()
    world.stack.wait_for_server(server)
    if server == "kafka":
        world.submit([(f"late-{number}", files[number].as_uri()) for number in range(20)])
    world.wait(lambda: world.count("checked") == 80, f"all checked after {server} came back", limit_s=150)
    same = {(a, b) for a, b in world.pairs() if number_of(a) % 20 == number_of(b) % 20}
    assert len(same) == 20 * 6  # each photo stands under four ids
    world.stop()


@pytest.mark.faults
def test_workers_stop_on_a_signal_though_kafka_is_away(make_world: MakeWorld, photos: Path, tmp_path: Path) -> None:
    """A commit, or a client that is closed, would wait for the broker for ever."""
    files = make_faces(photos, tmp_path / "photos", 60)
    world = make_world(encoder_processes=1)
    world.start(*WORKERS)
    world.submit((f"person-{number}", file.as_uri()) for number, file in enumerate(files))
    world.wait(lambda: world.count("checked") >= 10, "the work has begun")
    kafka = world.stack.supervisor.children["kafka"]
    kafka.stop()
    try:
        processes = [worker.process for worker in world.workers.values() if worker.process is not None]
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait(STOP_WITHIN_S + 10)
    finally:
        world.stop()
        kafka.start()
        world.stack.wait_for_server("kafka")


def number_of(individual_id: str) -> int:
    return int(individual_id.rpartition("-")[2])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("server", ["redis", "postgres", "kafka"])
def test_an_outage_of_seconds(make_world: MakeWorld, photos: Path, tmp_path: Path, server: str) -> None:
    outage(make_world, photos, tmp_path / "photos", server, seconds=6)


@pytest.mark.faults
@pytest.mark.parametrize("server", ["redis", "postgres", "kafka"])
def test_an_outage_of_a_minute(make_world: MakeWorld, photos: Path, tmp_path: Path, server: str) -> None:
    outage(make_world, photos, tmp_path / "photos", server, seconds=60)


def test_a_command_that_reads_gives_up_where_a_table_is_locked(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    monkeypatch.setattr(postgres, "STATEMENT_LIMIT_S", 0.3)
    with world.engine.begin() as other:
        other.execute(text("LOCK TABLE individuals, individual_duplicates, certificates IN ACCESS EXCLUSIVE MODE"))
        for command in ("status", "duplicates", "certificates"):
            done = CliRunner(env=world.env).invoke(app, [command])
            assert (done.exit_code, "Postgres is slow" in done.output) == (2, True), (command, done.output)
