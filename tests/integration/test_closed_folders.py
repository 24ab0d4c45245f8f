"""Where the stack lies below folders that are closed to others, as root's are, Postgres runs, and they stay closed."""

import ctypes
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.local.folders import private_folder
from deploy.local.nobody import closed_folders
from deploy.local.ports import free_ports
from deploy.local.servers import prepare_postgres
from deploy.local.supervisor import Supervisor

_PR_CAPBSET_DROP, _CAP_SYS_ADMIN = 24, 21
PREPARE = (
    "import sys, pathlib; from deploy.local.servers import prepare_postgres; from schemas.faults import UserFault\n"
    "try: prepare_postgres(pathlib.Path(sys.argv[1]), 1)\n"
    "except UserFault as fault: sys.exit(f'refused: {fault}')"
)
of_root = pytest.mark.skipif(os.geteuid() != 0, reason="others' Postgres runs as themselves")


@contextmanager
def stack_below(mode: int) -> Iterator[Path]:
    """A stack's folder below one of that mode, which everybody can come to."""
    with tempfile.TemporaryDirectory(prefix="facematch-") as above:
        Path(above).chmod(mode)
        yield private_folder(Path(above) / "stack")


def modes(folder: Path) -> dict[str, str]:
    return {str(one): f"{one.stat().st_mode:o}" for one in (folder, *folder.parents)}


def prepared_without_mounts(folder: Path) -> "subprocess.CompletedProcess[str]":
    """Postgres prepared as by root in most containers, who may not mount."""
    return subprocess.run(
        [sys.executable, "-c", PREPARE, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, _CAP_SYS_ADMIN),
    )


def test_postgres_runs_below_folders_that_stay_closed() -> None:
    with stack_below(0o700) as folder:
        before = modes(folder)
        lines: list[str] = []
        supervisor = Supervisor(lambda _, line: lines.append(line))
        server = prepare_postgres(folder / "postgres", free_ports(1)[0])
        child = supervisor.start("postgres", server.command, stop_signal=server.stop_signal)
        try:
            deadline = time.monotonic() + 60
            while not server.ready():
                assert time.monotonic() < deadline, lines
            assert child.process is not None
            user = Path(f"/proc/{child.process.pid}").stat().st_uid
            assert user == (folder / "postgres").stat().st_uid != 0
        finally:
            supervisor.stop()
        assert modes(folder) == before
        assert not child.restarts, lines


@of_root
def test_where_root_may_not_mount_only_the_stacks_own_folder_lets_others_pass() -> None:
    with stack_below(0o711) as folder:
        before = modes(folder.parent)
        done = prepared_without_mounts(folder / "postgres")
        assert done.returncode == 0, done.stderr
        assert (folder / "postgres" / "PG_VERSION").exists()
        assert modes(folder) == {**before, str(folder): "40711"}


@of_root
def test_where_root_may_not_mount_a_closed_folder_above_the_stack_is_refused_with_what_to_do() -> None:
    with stack_below(0o700) as folder:
        before = modes(folder)
        done = prepared_without_mounts(folder / "postgres")
        assert done.stderr.startswith("refused: PostgreSQL does not run as root but as nobody"), done.stderr
        assert f"chmod o+x {folder.parent}" in done.stderr
        assert modes(folder) == before


def test_of_each_path_the_first_closed_folder_from_the_root_on_is_found(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with stack_below(0o755) as folder:
        below = private_folder(folder / "a" / "b")
        assert closed_folders([below, folder, below / "c"]) == [folder]
        folder.chmod(0o755)
        assert closed_folders([below]) == []
        assert closed_folders([below / "c"]) == [below]
