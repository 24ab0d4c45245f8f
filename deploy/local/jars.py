"""Jars from Maven, which jgo resolves on first use and keeps in its cache.

`jars.lock` names the artefacts ("# group:artefact:version") and has the SHA-256 of each of their jars and of those that
they depend on. `python -m deploy.local.jars` fetches the artefacts and writes the digests anew; `make lock` does it.
"""

import hashlib
from pathlib import Path

import jgo

from deploy.local.turns import one_at_a_time
from schemas.faults import UserFault

LOCK_FILE = Path(__file__).with_name("jars.lock")
_TURNS = Path("~/.cache/facematch/jars.lock").expanduser()


class UnlockedJarError(UserFault):
    """A jar is not the one that the lock file names, or is not in it. The text names the jar."""


def class_path(*artefacts: str) -> str:
    """Java's class path of artefacts (group:artefact:version) and of all that they depend on.

    Raises UnlockedJarError before anything of a jar runs. jgo fails where two processes resolve the same for the first
    time at once: one waits for the other.
    """
    jars = resolve(*artefacts)
    check(jars, LOCK_FILE.read_text())
    return ":".join(map(str, jars))


def resolve(*artefacts: str) -> list[Path]:
    """The jars of artefacts, in the order of their names; fetched on first use, and not checked."""
    with one_at_a_time(_TURNS):
        folder = jgo.build("+".join(artefacts)).path
    return sorted(Path(folder).rglob("*.jar"))


def check(jars: list[Path], lock: str) -> None:
    """Compare jars with the lines of a lock file. Raises UnlockedJarError."""
    lines = (line.partition("  ") for line in lock.splitlines() if not line.startswith("#"))
    locked = {name: digest for digest, _, name in lines}
    for jar in jars:
        if jar.name not in locked:
            raise UnlockedJarError(f"{jar.name} is not in {LOCK_FILE.name}; `make lock` writes it")
        if sha256_of(jar) != locked[jar.name]:
            raise UnlockedJarError(f"{jar} is not the jar whose SHA-256 is in {LOCK_FILE.name}: remove it")


def sha256_of(file: Path) -> str:
    """The digest of a file, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def locked_artefacts() -> list[str]:
    """The artefacts that the lock file names."""
    return [line.removeprefix("# ") for line in LOCK_FILE.read_text().splitlines() if line.startswith("# ")]


if __name__ == "__main__":
    artefacts = locked_artefacts()
    jars = {jar.name: sha256_of(jar) for artefact in artefacts for jar in resolve(*artefact.split("+"))}
    lines = [*(f"# {artefact}" for artefact in artefacts), *(f"{jars[name]}  {name}" for name in sorted(jars))]
    LOCK_FILE.write_text("\n".join(lines) + "\n")
