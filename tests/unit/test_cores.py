"""How many cores: no more than a container is given of the machine's."""

import os
from pathlib import Path

import pytest

from runtime.process.cores import cores


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 1), ("50000 100000", 1), ("1600000 100000", 8)],
)
def test_a_container_uses_the_cores_that_it_is_given(tmp_path: Path, limit: str, expected: int) -> None:
    (tmp_path / "cpu.max").write_text(limit + "\n")
    assert cores(tmp_path) == expected


def test_a_machine_uses_all_that_it_may_run_on(tmp_path: Path) -> None:
    assert cores(tmp_path) == 8
