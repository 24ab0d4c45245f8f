"""Runs a program as the user `nobody`, for root: PostgreSQL refuses to run as root.

`python -m deploy.local.nobody PATH... -- PROGRAM ARGUMENT...`

`nobody` may not pass through folders that are closed to others, as root's are. They stay closed: the program gets a
mount namespace of its own, in which an empty folder covers each closed one and holds the PATHs alone, under their own
names. It takes Linux, and the capability CAP_SYS_ADMIN, which root lacks in most containers.

A user namespace in which root has another number would be shorter, and wrong: to files Postgres would be root, and who
may use Postgres may write them.
"""

import ctypes
import os
import pwd
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.local.faults import LocalStackError

USER = "nobody"
# Of Linux: sched.h, sys/mount.h, sys/prctl.h.
_CLONE_NEWNS = 0x20000
_MS_NOSUID_NODEV = 0x2 | 0x4
_MS_BIND = 0x1000
_MS_PRIVATE_ALL = 0x40000 | 0x4000
_PR_SET_PDEATHSIG = 1


class ClosedFolderError(LocalStackError):
    """`nobody` may not pass through a folder, and nothing can be mounted over it. The text says what to do."""


def as_nobody(command: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """The command line that runs a command as `nobody`, who sees the files and folders `paths` (no links)."""
    return [sys.executable, "-m", "deploy.local.nobody", *map(str, paths), "--", *command]


def closed_folders(paths: Sequence[Path]) -> list[Path]:
    """The folders above `paths` that others may not pass through: of each path the first, from the root on."""
    found = dict[Path, None]()
    for path in paths:
        for folder in reversed(path.parents):
            if not folder.stat().st_mode & 0o001:
                found[folder] = None
                break
    return list(found)


def _cover(closed: Sequence[Path], paths: Sequence[Path]) -> None:
    """Leave of the closed folders only `paths`, for this process and its children. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)

    def mount(source: str | None, target: Path, kind: str | None, flags: int, options: str | None = None) -> None:
        words = (word if word is None else word.encode() for word in (source, str(target), kind))
        if libc.mount(*words, ctypes.c_ulong(flags), None if options is None else options.encode()):
            raise OSError(ctypes.get_errno(), f"mounting over {target} failed")

    if libc.unshare(_CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "no mount namespace")
    mount(None, Path("/"), None, _MS_PRIVATE_ALL)
    opened = {path: os.open(path, os.O_PATH) for path in paths if any(path.is_relative_to(one) for one in closed)}
    kinds = {path: path.is_dir() for path in opened}
    for folder in closed:
        mount("covers", folder, "tmpfs", _MS_NOSUID_NODEV, "mode=0755")
    for path, descriptor in opened.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if kinds[path] else path.touch()
        mount(f"/proc/self/fd/{descriptor}", path, None, _MS_BIND)
        os.close(descriptor)


def _become_nobody() -> None:
    """Give up root, for good; the end of the parent still ends this process, as without the change of user."""
    parent, user = os.getppid(), pwd.getpwnam(USER)
    os.setgroups(())
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(1)


def main(arguments: Sequence[str]) -> None:
    """See the module. Replaces this process. Raises ClosedFolderError, or OSError where the program cannot be run."""
    end = arguments.index("--")
    paths, command = [Path(one) for one in arguments[:end]], list(arguments[end + 1 :])
    umask = os.umask(0o022)
    if closed := closed_folders(paths):
        try:
            _cover(closed, paths)
        except OSError as error:
            names = shlex.join(map(str, closed))
            raise ClosedFolderError(
                f"PostgreSQL does not run as root but as {USER}, who may not pass through {names}, and root may "
                f"not mount here ({error.strerror}). Run facematch as another user, move it to where everybody may "
                f"pass, or let others pass: chmod o+x {names}"
            ) from None
    os.umask(umask)
    os.chdir("/")
    _become_nobody()
    os.execv(command[0], command)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ClosedFolderError, OSError) as fault:
        sys.exit(str(fault))
