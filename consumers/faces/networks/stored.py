"""Where the weights of encoders are, and whether they are those that the manifests name."""

from collections.abc import Iterator
from pathlib import Path

from consumers.faces.networks.weights import WeightsError, file_digest
from schemas.encoders.manifest import EncoderManifest, WeightsFile
from schemas.settings import Settings


def places_of(settings: Settings, manifest: EncoderManifest, one: WeightsFile) -> Iterator[Path]:
    """Where a file of weights may be, the first that counts first: beside the manifest, in the cache, in a package."""
    from consumers.faces.encoder import models_folder

    yield settings.encoders_folder / manifest.name / one.file
    yield settings.model_cache / one.file
    yield models_folder() / one.file


def weights_path(settings: Settings, manifest: EncoderManifest, one: WeightsFile) -> Path:
    """The file, whose SHA-256 is the manifest's. Raises WeightsError where it is missing or another."""
    for path in places_of(settings, manifest, one):
        if path.is_file():
            if (found := file_digest(path)) != one.sha256:
                raise WeightsError(
                    f"{path} is another file than the manifest of {manifest.name} names: its SHA-256 is {found}, not "
                    f"{one.sha256}. Put the right one there, or remove it"
                )
            return path
    raise WeightsError(
        f"{one.file}, which {manifest.name} needs, is not there: `facematch encoder add {one.file}` takes it from "
        "where you have it"
    )
