"""No target of the Makefile rots: `.ci/run` makes it, or a test of this file is named after it."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements.lock"
IMAGES = ROOT / "deploy" / "image"


def targets() -> dict[str, list[str]]:
    """The targets that one can name, and what each makes first."""
    rules = re.findall(r"^([a-z][a-z-]*):([^#\n]*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return {name: first.split() for name, first in rules}


def made_by_ci() -> set[str]:
    """The targets that `.ci/run` makes, with all that these make first."""
    waiting = re.findall(r"^\s*make ([a-z-]+)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    made: set[str] = set()
    while waiting:
        target = waiting.pop()
        made.add(target)
        waiting += targets().get(target, [])
    return made


def printed(target: str) -> str:
    """The commands of a target, which are not run."""
    command = ["make", "--dry-run", "--no-print-directory", "--assume-old=.venv/installed", target]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("target", targets())
def test_every_target_is_made_by_ci_or_held_by_a_test_here(target: str) -> None:
    test = f"test_{target.replace('-', '_')}"
    held = target in made_by_ci() or any(name == test or name.startswith(f"{test}_makes_") for name in globals())
    assert held, f"nothing runs `make {target}`: let .ci/run make it, or write {test}_makes_… here"


def test_help_makes_a_line_for_every_target() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True)
    assert re.findall(r"^  make ([a-z-]+) +\S", done.stdout, re.MULTILINE) == list(targets())


def test_demo_makes_what_the_tests_of_the_demo_run() -> None:
    """`tests/integration/test_demo.py` runs the command itself."""
    assert printed("demo").split() == [".venv/bin/facematch", "demo"]


def test_simulate_makes_as_many_seeds_as_are_asked_for() -> None:
    """`tests/unit/test_simulation.py` runs what the module does with them."""
    assert printed("simulate").split() == [".venv/bin/python", "-m", "tests.simulation", "--seeds", "1000"]


def test_test_faults_makes_a_run_of_tests_that_are_there() -> None:
    """Too long for CI: run by hand before a release."""
    command = (
        f"{printed('test-faults').strip()} --collect-only --quiet --no-header tests/integration/test_faults_redis.py"
    )
    done = subprocess.run(command, shell=True, cwd=ROOT, check=True, capture_output=True, text=True)
    assert "test_faults_redis.py::test_redis_killed_ten_times_in_50_000_events" in done.stdout


def test_generate_makes_the_files_that_are_committed(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "schemas", tmp_path / "schemas", ignore=shutil.ignore_patterns("*.json", "__pycache__"))
    python, *module = printed("generate").split()
    subprocess.run([ROOT / python, *module], cwd=tmp_path, check=True)
    written, committed = (
        {path.relative_to(root): path.read_text() for path in (root / "schemas").rglob("*.json")}
        for root in (tmp_path, ROOT)
    )
    assert written == committed


def test_clean_makes_away_with_the_environment_and_the_stack_alone(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in (".venv", ".facematch", "photos"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Makefile", "photos"]


def locked(file: Path) -> list[Requirement]:
    """What a lock file pins, all of it with hashes. A package may have several pins, for several versions of Python."""
    pins = re.findall(r"^(\S+==\S+(?: ;.*?)?) \\\n    --hash=sha256:", file.read_text(), re.MULTILINE)
    assert len(pins) == len(re.findall(r"^\S+==", file.read_text(), re.MULTILINE)), f"{file.name}: one has no hash"
    return [Requirement(pin) for pin in pins]


def needed(*extras: str) -> Iterator[str]:
    """Names of all that the project needs here, as the packages that are installed say themselves."""
    waiting, seen = [("facematch", extra) for extra in ("", *extras)], set[tuple[str, str]]()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen or name == "dlib":  # dlib-bin takes its place: see pyproject.toml
            continue
        seen.add((name, extra))
        for text in distribution(name).requires or []:
            one = Requirement(text)
            if one.marker is None or one.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(one.name), more) for more in ("", *one.extras)]
    yield from sorted({name for name, _ in seen} - {"facematch"})


@pytest.mark.parametrize(
    ("file", "extras"), [(LOCK, ("local", "dev")), (IMAGES / "requirements-cpu.lock", ())], ids=["all", "cpu"]
)
def test_lock_makes_files_that_have_what_pyproject_needs_and_no_more(file: Path, extras: tuple[str, ...]) -> None:
    here = [pin for pin in locked(file) if pin.marker is None or pin.marker.evaluate()]
    pins = {canonicalize_name(pin.name): pin for pin in here}
    assert sorted(pins) == list(needed(*extras)), "run `make lock`"
    for text in distribution("facematch").requires or []:
        one = Requirement(text)
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras):
            (version,) = pins[canonicalize_name(one.name)].specifier
            assert one.specifier.contains(version.version), f"{one}: run `make lock`"


def test_lock_makes_files_with_the_same_versions() -> None:
    everywhere = {str(pin.specifier) + pin.name for pin in locked(LOCK)}
    cpu, gpu = (
        {str(pin.specifier) + pin.name for pin in locked(IMAGES / f"requirements-{at}.lock")} for at in ("cpu", "gpu")
    )
    assert cpu <= everywhere
    assert {re.sub("[^a-z-]", "", pin) for pin in gpu - everywhere} >= {"onnxruntime-gpu"}
    runtime = {pin for pin in cpu if pin.endswith("onnxruntime")}
    assert cpu - gpu == runtime
