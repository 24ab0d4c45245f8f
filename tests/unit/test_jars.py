"""Nothing of a jar runs that is not the one whose SHA-256 is locked."""

from pathlib import Path

import pytest

from deploy.local.jars import UnlockedJarError, check, locked_artefacts, sha256_of
from deploy.local.servers import KAFKA


@pytest.fixture
def jar(tmp_path: Path) -> Path:
    path = tmp_path / "kafka-1.jar"
    path.write_bytes(b"as it was")
    return path


def test_jars_as_they_are_locked_are_taken(jar: Path) -> None:
    check([jar], f"# org:kafka:1\n{sha256_of(jar)}  kafka-1.jar\n")


def test_a_jar_with_other_bytes_is_refused(jar: Path) -> None:
    lock = f"{sha256_of(jar)}  kafka-1.jar\n"
    jar.write_bytes(b"as it is now")
    with pytest.raises(UnlockedJarError, match=r"kafka-1.jar is not the jar whose SHA-256"):
        check([jar], lock)


def test_a_jar_that_nobody_locked_is_refused(jar: Path) -> None:
    with pytest.raises(UnlockedJarError, match=r"kafka-1.jar is not in jars.lock"):
        check([jar], "# org:kafka:1\n")


def test_the_lock_is_that_of_the_kafka_that_runs() -> None:
    assert KAFKA in locked_artefacts()
