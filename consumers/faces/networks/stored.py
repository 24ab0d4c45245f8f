"""Where the weights of encoders are, and whether they are those that the manifests name."""

from collections.abc import Iterator
from pathlib import Path

from consumers.faces.networks.weights import WeightsError, file_digest
from schemas.encoders.known import SHIPPED
from schemas.encoders.manifest import EncoderManifest, WeightsFile
from schemas.settings import ENCODERS, Settings


def places_of(settings: Settings, manifest: EncoderManifest, one: WeightsFile) -> Iterator[Path]:
    """Where a file of weights may be, the first that counts first: the encoder's folder, one that ships, a package.

    What ships may have come with the image, while what was added lies elsewhere.
    """
    from consumers.faces.encoder import models_folder

    folders = dict.fromkeys((settings.encoders_folder, settings.model_cache / ENCODERS))
    yield from (folder / name / one.file for name in dict.fromkeys((manifest.name, *SHIPPED)) for folder in folders)
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
        f"{one.file}, which {manifest.name} needs, is not there: `facematch encoder fetch` fetches those of sface, "
        f"`facematch encoder add {one.file}` takes it from where you have it"
    )
