"""The image's recipe, without an engine: what it copies, installs and makes is what the workers need."""

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from consumers.encoder.process import Pool, load_encoding
from consumers.faces.networks import cache
from deploy.setup.weights import WeightsUnavailableError, fetch_weights
from schemas.encoders.known import SHIPPED
from schemas.settings import ENCODERS, Settings

ROOT = Path(__file__).parents[2]
CONTAINERFILE = ROOT / "deploy" / "image" / "Containerfile"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
INSTRUCTIONS = re.sub(r"\\\n\s*", "", CONTAINERFILE.read_text()).splitlines()


def pinned(lock: Path) -> dict[str, str]:
    """Of each requirement of a lock file, its name and all that is said of it."""
    entries = re.findall(r"^([a-z0-9-]+)(==.*(?:\n    .*)*)", lock.read_text(), re.MULTILINE)
    return {name: text for name, text in entries if "sys_platform == 'never'" not in text}


EVERYTHING, CPU, GPU = (
    pinned(ROOT / name)
    for name in ("requirements.lock", "deploy/image/requirements-cpu.lock", "deploy/image/requirements-gpu.lock")
)


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[=<>~; ]", requirement)[0].lower().replace("_", "-") for requirement in requirements}


def context() -> list[str]:
    """The files that `.dockerignore` leaves: in the order of its lines, the last that fits a file or a folder above."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]

    def is_left(name: str) -> bool:
        path, left = PurePosixPath(name), True
        for rule in rules:
            pattern = rule.removeprefix("!").replace("**/", "*")
            if any(fnmatch.fnmatch(str(place), pattern) for place in (path, *path.parents)):
                left = rule.startswith("!")
        return left

    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return [name for name in listed if is_left(name) and (ROOT / name).exists()]


def test_the_recipe_passes_its_linter() -> None:
    done = subprocess.run([Path(sys.executable).parent / "hadolint", CONTAINERFILE], check=False, capture_output=True)
    assert done.stdout.decode() == ""


def test_what_is_copied_is_there() -> None:
    copied = [line.split()[1] for line in INSTRUCTIONS if line.startswith("COPY") and "--from" not in line]
    assert copied == ["deploy/image/requirements-${VARIANT}.lock", "."]
    left = context()
    assert {"deploy/image/requirements-cpu.lock", "deploy/image/requirements-gpu.lock", "pyproject.toml"} <= set(left)
    assert not [name for name in left if name.startswith(("tests/", ".facematch/", "deploy/kubernetes/"))]


def test_the_image_has_what_the_workers_need_at_the_versions_that_are_tested() -> None:
    assert names(PROJECT["project"]["dependencies"]) <= CPU.keys()
    assert CPU.items() <= EVERYTHING.items()
    extras = PROJECT["project"]["optional-dependencies"]
    assert not names([*extras["local"], *extras["dev"]]) & CPU.keys()


def test_the_image_for_a_gpu_differs_in_onnxruntime_alone() -> None:
    own = {name for name in GPU if name not in CPU}
    assert CPU.keys() - GPU.keys() == {"onnxruntime"}
    assert {name for name in own if not name.startswith("nvidia-")} == {"onnxruntime-gpu"}
    assert all(GPU[name] == CPU[name] for name in GPU.keys() - own)


def test_what_is_installed_is_whole(tmp_path: Path) -> None:
    """Every module is there, and so is the SQL of the outbox; nothing is found in the repository instead."""
    for name in context():
        (tmp_path / "build" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "build" / name).write_bytes((ROOT / name).read_bytes())
    build = "from setuptools.build_meta import build_wheel; print(build_wheel('..'))"
    made = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", build],
        cwd=tmp_path / "build",
        check=True,
        capture_output=True,
        text=True,
    )
    with zipfile.ZipFile(tmp_path / made.stdout.splitlines()[-1]) as wheel:
        wheel.extractall(tmp_path / "installed")
    modules = {str(PurePosixPath(name)) for name in context() if name.endswith(".py")}
    installed = {str(path.relative_to(tmp_path / "installed")) for path in (tmp_path / "installed").rglob("*")}
    assert modules <= installed
    used = "from deploy.cli import app; import deploy; print(deploy.__file__); app(['--help'])"
    done = subprocess.run(
        [sys.executable, "-c", used],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith(str(tmp_path / "installed"))
    assert "encode" in done.stdout
    assert (tmp_path / "installed" / "producers" / "outbox" / "outbox.sql").exists()


def test_pools_find_their_networks_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that they work where the root file system cannot be written to."""
    (line,) = (line for line in INSTRUCTIONS if line.startswith("RUN ["))
    command = json.loads(line.removeprefix("RUN "))
    try:
        fetch_weights(Settings())
    except WeightsUnavailableError as error:
        pytest.skip(str(error))
    shutil.copytree(Settings().encoders_folder / "sface", tmp_path / ENCODERS / "sface")
    monkeypatch.setenv("FACEMATCH_MODEL_CACHE", str(tmp_path))
    subprocess.run([sys.executable, *command[1:]], check=True)

    def write(path: Path, _: bytes) -> None:
        raise AssertionError(f"{path} is not there")

    monkeypatch.setattr(cache, "_write", write)
    for pool in Pool:
        for name in SHIPPED:
            load_encoding(Settings(), pool, name)


def test_the_image_sets_what_there_is_to_set() -> None:
    environment = [word for line in INSTRUCTIONS if line.startswith("ENV") for word in line.split()[1:]]
    own = {word.split("=")[0] for word in environment if word.startswith("FACEMATCH_")}
    assert own == {"FACEMATCH_MODEL_CACHE", "FACEMATCH_DATA_FOLDER"}
    assert {name.removeprefix("FACEMATCH_").lower() for name in own} <= Settings.model_fields.keys()
    assert INSTRUCTIONS[-2] == 'ENTRYPOINT ["tini", "--", "facematch"]'
    assert "USER 10001:10001" in INSTRUCTIONS
