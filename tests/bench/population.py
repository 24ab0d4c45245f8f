"""How well tests.population fits: `python -m tests.bench.population FOLDER`, of photos as `encoder verify` takes them.

Prints Markdown tables: figures of the photos beside those of generated populations of the same size, and, of larger
ones, how many different people are near each other.
"""

import itertools
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from consumers.faces.detectors import CnnDetector, HogDetector
from consumers.faces.encoder import FaceEncoder, models_folder
from consumers.photos.file import PhotoFile
from consumers.photos.rejected import RejectedError
from deploy.verify.identities import Identities
from producers.submit.entries import photos_in
from schemas.settings import Settings
from tests.bench.machine import print_table
from tests.population import embeddings, photos

POPULATIONS = 100
# Photos of which nobody says whether they show one person do so if they are nearer than this.
PRESUMED_SAME = 0.5
AMONG = 20_000
MILLION = 1_000_000
PROBES = 200

Matrix = NDArray[np.float64]


def encoded(folder: Path, settings: Settings) -> tuple[Matrix, NDArray[np.int64]]:
    """Embeddings of the largest faces in a folder's photos, of shape (n, 128), and the number of each one's person."""
    models, cache = models_folder(), settings.model_cache
    detectors, encoder = (HogDetector(cache), CnnDetector(models, cache)), FaceEncoder(models, cache)
    paths, rows = [], []
    for path in photos_in(folder):
        photo = PhotoFile(path.read_bytes(), settings.max_photo_pixels)
        for detector in detectors:
            (faces,) = detector.find([photo])
            if isinstance(faces, RejectedError):
                raise faces
            if faces:
                paths.append(path)
                rows.append(encoder.embed(encoder.align(photo, faces[0]).chip[None])[0].astype(np.float64))
                break
    return np.stack(rows), _people(paths, np.stack(rows))


def _people(paths: list[Path], rows: Matrix) -> NDArray[np.int64]:
    identities, people, between = Identities(paths), np.arange(len(paths)), distances(rows)
    for a, b in itertools.combinations(range(len(paths)), 2):
        same = identities.same(paths[a], paths[b])
        if same or (same is None and between[a, b] < PRESUMED_SAME):
            people[people == people[b]] = people[a]
    return np.unique(people, return_inverse=True)[1].astype(np.int64)


def distances(rows: Matrix) -> Matrix:
    """Between all rows, of shape (n, n)."""
    squares = np.square(rows).sum(axis=1)
    between: Matrix = np.sqrt(np.maximum(squares[:, None] + squares - 2 * rows @ rows.T, 0))
    return between


def local_dimension(between: Matrix, neighbours: int) -> float:
    """Levina & Bickel's estimate (NIPS 2004), the inverses averaged as MacKay & Ghahramani propose."""
    nearest = np.sort(between, axis=1)[:, 1 : neighbours + 1]
    return float(1 / np.log(nearest[:, -1:] / nearest[:, :-1]).mean())


def effective_dimension(rows: Matrix) -> float:
    """Of a covariance with eigenvalues v: (Σv)² / Σv²."""
    values = np.linalg.eigvalsh(np.cov(rows.T))
    return float(values.sum() ** 2 / np.square(values).sum())


def figures(rows: Matrix, people: NDArray[np.int64]) -> dict[str, float]:
    """What the fit is held against."""
    between = distances(rows)
    upper = np.triu_indices(len(rows), 1)
    is_same = (people[:, None] == people)[upper]
    same, different = between[upper][is_same], between[upper][~is_same]
    norms = np.linalg.norm(rows, axis=1)
    centres = np.stack([rows[people == person].mean(axis=0) for person in np.unique(people)])
    first = np.unique(people, return_index=True)[1]
    quantiles = {f"same person, {share:.0%} quantile": np.quantile(same, share) for share in (0.05, 0.5, 0.95)}
    return {
        "norm, mean": norms.mean(),
        "norm, standard deviation": norms.std(),
        **quantiles,
        "same person, share ≤ 0.45": (same <= 0.45).mean(),
        "same person, share ≤ 0.6": (same <= 0.6).mean(),
        "different people, mean": different.mean(),
        "different people, standard deviation": different.std(),
        "different people, 0.1% quantile": np.quantile(different, 0.001),
        "different people, 1% quantile": np.quantile(different, 0.01),
        "different people, 99% quantile": np.quantile(different, 0.99),
        "effective dimension of people": effective_dimension(centres),
        "effective dimension of one's photos": effective_dimension(rows - centres[people]),
        "local dimension, 40 neighbours": local_dimension(between, 40),
        "local dimension, one photo each, 10 neighbours": local_dimension(between[np.ix_(first, first)], 10),
    }


def print_fit(rows: Matrix, people: NDArray[np.int64]) -> None:
    """Real figures beside generated ones: mean ± standard deviation of populations with as many photos of each."""
    shots = np.concatenate([np.arange(count) for count in np.bincount(people)])
    alike = np.sort(people)
    drawn = [figures(photos(alike, shots, seed).astype(np.float64), alike) for seed in range(POPULATIONS)]
    table = []
    for what, real in figures(rows, people).items():
        generated = np.array([one[what] for one in drawn])
        table.append((what, f"{real:.3f}", f"{generated.mean():.3f} ± {generated.std():.3f}"))
    print_table((f"{len(rows)} photos of {people.max() + 1} people", "real", "generated"), table)


def print_near_strangers() -> None:
    """Shares of pairs of different people, and the nearest of a million."""
    rows = embeddings(AMONG, 1)
    squares = np.square(rows).sum(axis=1)
    within = dict.fromkeys((0.45, 0.5, 0.55, 0.6), 0)
    for start in range(0, AMONG, 1000):
        chunk = slice(start, start + 1000)
        between = squares[chunk, None] + squares - 2 * rows[chunk] @ rows.T
        for threshold in within:
            within[threshold] += int((between <= threshold**2).sum())
    pairs = AMONG * (AMONG - 1)
    print_table(
        ("threshold", "share of pairs of different people within"),
        [(f"{threshold:g}", f"{(count - AMONG) / pairs:.1e}") for threshold, count in within.items()],
    )
    probes, gallery = embeddings(PROBES, 2), embeddings(MILLION, 1)
    nearest = np.sort(np.stack([np.linalg.norm(gallery - probe, axis=1) for probe in probes]), axis=1)[:, :100]
    table = [(f"{n}", f"{np.median(nearest[:, n - 1]):.3f}") for n in (1, 10, 100)]
    print_table(("neighbour among a million strangers", "median distance"), table)
    counts = (nearest <= 0.45).sum(axis=1)
    dimension = 1 / np.log(nearest[:, -1:] / nearest[:, :-1]).mean()
    print(f"\nwithin 0.45, of 100: mean {counts.mean():.0f}, median {np.median(counts):.0f}; dimension {dimension:.1f}")


if __name__ == "__main__":
    print_fit(*encoded(Path(sys.argv[1]), Settings()))
    print_near_strangers()
