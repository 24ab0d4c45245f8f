"""The photos of a folder, a folder for each person, through an encoder as its workers run it."""

import csv
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from consumers.encoder.answers import Escalation, Task
from consumers.encoder.encoding import Encoding
from consumers.encoder.process import Pool, load_encoding
from deploy.calibration.statistics import KnownPeople
from producers.submit.entries import photos_in
from schemas.envelope import announce
from schemas.events.encodings import EncodingComputed, EncodingRejected
from schemas.events.registrations import IndividualCreated, Photo
from schemas.faults import UserFault
from schemas.settings import Settings

PEOPLE = "people.csv"
_FEWEST_PEOPLE = 2


class FolderError(UserFault):
    """A folder from which nothing can be measured. The text says what is missing."""


@dataclass(slots=True)
class Encoded:
    """What became of the photos: the files that were encoded, their embeddings, and rejections by reason."""

    files: list[Path] = field(default_factory=list)
    embeddings: list[np.ndarray] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)


def people_in(folder: Path) -> tuple[list[Path], dict[str, str]]:
    """The photos of a folder whose subfolders are people, and the group of each person who has one in people.csv.

    Raises FolderError.
    """
    photos = [path for path in photos_in(folder) if path.parent != folder] if folder.is_dir() else []
    people = {path.parent for path in photos}
    if len(people) < _FEWEST_PEOPLE:
        raise FolderError(
            f"{folder}: {len(people)} people in it: let each of its subfolders hold the photos of one person, and let "
            f"there be at least {_FEWEST_PEOPLE}"
        )
    if len(people) == len(photos):
        raise FolderError(f"{folder}: nobody has two photos: nothing is known of one person's pairs")
    return photos, _groups(folder / PEOPLE, {path.parent.name for path in photos})


def _groups(file: Path, people: set[str]) -> dict[str, str]:
    if not file.exists():
        return {}
    with file.open(newline="") as opened:
        rows = csv.DictReader(opened)
        if not {"person", "group"} <= set(rows.fieldnames or ()):
            raise FolderError(f"{file}: its first line must name the columns person and group")
        groups = {row["person"]: row["group"] or "" for row in rows}
    if not people & groups.keys():
        raise FolderError(f"{file} names nobody who has a folder here")
    return groups


def encode_all(settings: Settings, encoder: str, photos: list[Path], progress: Callable[[int], None]) -> Encoded:
    """Encode photos as the CPU pool does, and what that escalates as the GPU pool does."""
    encoded, in_cpu_pool = Encoded(), load_encoding(settings, Pool.CPU, encoder)
    in_gpu_pool: Encoding | None = None
    for number, path in enumerate(photos, 1):
        event = IndividualCreated(collection="c", individual_id="a", revision=1, photo=Photo(uri="about:blank"))
        task = Task(announce(event, "facematch/calibrate"), path.read_bytes())
        (result,) = in_cpu_pool.encode([task])
        if isinstance(result, Escalation):
            in_gpu_pool = in_gpu_pool or load_encoding(settings, Pool.GPU, encoder)
            (result,) = in_gpu_pool.encode([task])
        if not isinstance(result, Escalation):
            match result.event:
                case EncodingComputed() as computed:
                    encoded.files.append(path)
                    encoded.embeddings.append(computed.embedding)
                case EncodingRejected() as rejected:
                    encoded.rejected[rejected.reason.value] += 1
        progress(number)
    return encoded


def sample_of(encoded: Encoded, groups: dict[str, str]) -> KnownPeople:
    """The embeddings of photos, by people and groups. Raises FolderError where too few were encoded."""
    people = [path.parent.name for path in encoded.files]
    if len(set(people)) < _FEWEST_PEOPLE or len(set(people)) == len(people):
        raise FolderError("too few photos could be encoded: see the rejections")
    return KnownPeople(np.stack(encoded.embeddings), people, [groups.get(person, "") for person in people])
