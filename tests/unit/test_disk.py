"""A disk that is full, or closed to us, ends a command with a line that says so, and no traceback."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from consumers.faces.networks.cache import CacheError, cached_file
from deploy.cli import app
from deploy.commands.app import Application
from deploy.local.supervisor import Supervisor


def command_that_raises(error: OSError) -> Application:
    """An application whose one command meets that error."""
    made = Application()

    @made.command()
    def write() -> None:
        raise error

    return made


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x"), "/data/x does not fit on its disk"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "/data/x"), "make room"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS), "/home/x"), "FACEMATCH_DATA_FOLDER"),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/home/x"), "Permission denied"),
    ],
)
def test_what_the_disk_refuses_is_a_line(error: OSError, told: str) -> None:
    done = CliRunner().invoke(command_that_raises(error), env={"COLUMNS": "400"})
    assert done.exit_code == 2
    assert told in done.output
    assert isinstance(done.exception, SystemExit)


def test_what_is_not_about_a_disk_is_our_own_fault() -> None:
    error = OSError(errno.EBADF, os.strerror(errno.EBADF), "/data/x")
    assert CliRunner().invoke(command_that_raises(error)).exception is error


def test_output_that_a_full_disk_does_not_take_is_a_line() -> None:
    command = [sys.executable, "-m", "deploy.cli", "settings"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert "No space left on device" in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["up", "down"])
def test_a_data_folder_that_cannot_be_made_is_a_line(tmp_path: Path, command: str) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "stack"
    done = CliRunner().invoke(app, [command], env={"FACEMATCH_DATA_FOLDER": str(folder), "COLUMNS": "400"})
    assert done.exit_code == 2
    assert f"{folder} cannot be read or written" in done.output


def test_a_cache_that_cannot_be_written_to_names_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match="FACEMATCH_MODEL_CACHE"):
        cached_file(tmp_path / "file" / "cache", "graph.onnx", lambda: b"graph")


def test_a_child_goes_on_though_its_lines_do_not_fit_on_the_disk() -> None:
    last = threading.Event()

    def on_line(_name: str, line: str) -> None:
        if line != "last":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        last.set()

    program = "import signal; print('line\\n' * 50_000 + 'last', flush=True); signal.pause()"
    supervisor = Supervisor(on_line)
    supervisor.start("talkative", [sys.executable, "-c", program])
    assert last.wait(30)
    supervisor.stop()
