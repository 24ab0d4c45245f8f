"""Jars from Maven, which jgo resolves on first use and keeps in its cache."""

from pathlib import Path

import jgo

from deploy.local.turns import one_at_a_time

_LOCK = Path("~/.cache/facematch/jars.lock").expanduser()


def class_path(*artefacts: str) -> str:
    """Java's class path of artefacts (group:artefact:version) and of all that they depend on.

    jgo fails where two processes resolve the same for the first time at once: one waits for the other.
    """
    with one_at_a_time(_LOCK):
        jars = jgo.build("+".join(artefacts)).path
    return ":".join(str(jar) for jar in sorted(Path(jars).rglob("*.jar")))
