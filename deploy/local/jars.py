"""Jars from Maven, which jgo resolves on first use and keeps in its cache."""

import fcntl
from pathlib import Path

import jgo

_LOCK = Path("~/.cache/facematch/jars.lock")


def class_path(*artefacts: str) -> str:
    """Java's class path of artefacts (group:artefact:version) and of all that they depend on.

    jgo fails where two processes resolve the same for the first time at once: one waits for the other.
    """
    lock = _LOCK.expanduser()
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        jars = jgo.build("+".join(artefacts)).path
    return ":".join(str(jar) for jar in sorted(Path(jars).rglob("*.jar")))
