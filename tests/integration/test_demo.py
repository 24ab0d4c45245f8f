"""`facematch demo` and `facematch up`, as a person runs them: a stack of their own in an empty folder."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.demo.photos import PACKAGE
from deploy.local.stack import WORKERS, hold

COMMAND = [sys.executable, "-m", "deploy.cli"]


def environment() -> dict[str, str]:
    """Ours, without settings, with the project found from any folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FACEMATCH_")}
    return {**kept, "COLUMNS": "160"}


def facematch(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], cwd=folder, env=environment(), capture_output=True, text=True, timeout=150, check=False
    )


def readable_by_others(folder: Path) -> set[str]:
    """The names in a folder that others may read, or look into."""
    return {path.name for path in folder.iterdir() if path.stat().st_mode & 0o077}


@pytest.fixture
def folder(photos: Path) -> Iterator[Path]:
    """An empty folder, but for the demo's photos, so that they are not fetched again. Not below pytest's: `servers`."""
    with tempfile.TemporaryDirectory(prefix="facematch-") as folder:
        shutil.copytree(photos, Path(folder) / ".facematch" / "photos" / PACKAGE)
        yield Path(folder)


def test_demo_finds_the_pairs_the_first_time_and_again(folder: Path) -> None:
    for _ in range(2):
        done = facematch(folder, "demo")
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(re.findall(r"^duplicate .* looks like .*, distance 0\.\d{3}$", done.stdout, re.M)) == 15
        assert re.search(r"encoded and checked\s*│ 7 ", done.stdout)
        assert re.search(r"pairs found\s*│ 15 ", done.stdout)
        assert re.search(r"p99\s*│ \d+\.\d\d s", done.stdout)
        for name, value in (("people", "7"), ("pairs kept", "15"), ("pairs found", "0"), ("in service", "yes")):
            assert re.search(rf"certificates.*{name}\s*│ {value} ", done.stdout, re.S)
        for place in ("facematch status", "facematch certificates", "targets.json", "alerts.yaml"):
            assert place in done.stdout.partition("Where to look next")[2]
    with hold(folder / ".facematch"):
        pass  # nothing runs any more


def test_demo_on_a_folder_of_ones_own_says_what_was_rejected(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own photos"
    own.mkdir()
    shutil.copy(folder / ".facematch" / "photos" / PACKAGE / "biden.jpg", own)
    (own / "broken.jpg").write_bytes(b"no photo")
    done = facematch(folder, "demo", "--photos", str(own))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"photo_unreadable\s*│ 1 ", done.stdout)
    assert "broken.jpg: the file is no photo" in done.stdout
    (own / "biden.jpg").unlink()
    (own / "broken.jpg").unlink()
    empty = facematch(folder, "demo", "--photos", str(own))
    assert empty.returncode == 2
    assert "no photos in it" in empty.stderr


@pytest.fixture
def up(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [*COMMAND, "up"],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_up_runs_until_it_is_stopped_and_its_data_stays(folder: Path, up: "subprocess.Popen[str]") -> None:
    assert up.stdout is not None
    seen = []
    for line in up.stdout:
        seen.append(line)
        if "up: " in line:
            break
    assert any(line.startswith("facematch  │") for line in seen), "".join(seen)
    again = facematch(folder, "up")
    assert (again.returncode, "already running" in again.stderr) == (2, True)
    photo = folder / ".facematch" / "photos" / PACKAGE / "biden.jpg"
    sent = facematch(folder, "submit", str(photo), "--inline")
    assert (sent.returncode, sent.stdout) == (0, "1 of 1 registrations acknowledged\n")
    status = facematch(folder, "status")
    assert status.returncode == 0, status.stderr
    assert "encoder-cpu" in status.stdout
    for worker in WORKERS:
        assert re.search(rf"│ {worker} +│ .+ │ http://127\.0\.0\.1:\d+/metrics", status.stdout), status.stdout
    up.send_signal(signal.SIGINT)
    rest = up.stdout.read()
    assert up.wait(60) == 0, rest
    assert "stopping" in rest
    assert facematch(folder, "down").stdout.startswith("no stack is running")
    assert (folder / ".facematch" / "postgres" / "PG_VERSION").exists()
    assert readable_by_others(folder / ".facematch") == {"lock", "photos", "targets.json"}, "public ones"
    assert (folder / ".facematch").stat().st_mode & 0o066 == 0, "nor can others see what is in it"
    assert facematch(folder, "down", "--erase").returncode == 0
    assert not (folder / ".facematch").exists()


def test_commands_without_servers_say_what_to_do(tmp_path: Path) -> None:
    for command in ("status", "duplicates"):
        done = facematch(tmp_path, command)
        assert done.returncode == 2
        assert "facematch up" in done.stderr
    done = facematch(tmp_path, "submit", "none.jpg")
    assert done.returncode == 2
    assert "no such file" in done.stderr
    (tmp_path / "a.jpg").touch()
    done = facematch(tmp_path, "submit", "a.jpg", "--timeout", "1")
    assert done.returncode == 1
    assert "a.jpg: Kafka did not acknowledge it within 1 s" in done.stderr
