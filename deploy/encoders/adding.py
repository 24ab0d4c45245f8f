"""`facematch encoder add`: an encoder of one's own, or weights of one that ships."""

import shutil
import tempfile
from pathlib import Path

from consumers.faces.networks.onnx_network import check_network
from consumers.faces.networks.weights import WeightsError, file_digest
from deploy.encoders.catalogue import weights_problems
from schemas.encoders.known import MANIFEST_FILE, SHIPPED, known_encoders, read_manifest, shipped
from schemas.encoders.manifest import EncoderManifest, WeightsFile, WeightsRole
from schemas.faults import UserFault
from schemas.settings import Settings
from schemas.thresholds import NoThresholdError, Thresholds


class NotAddedError(UserFault):
    """An encoder or a file of weights that was not added. The text says why; nothing was changed."""


def add(settings: Settings, file: Path) -> str:
    """Add a manifest with the weights beside it, or weights that an encoder which ships needs. Returns what was done.

    Whatever is wrong is found before anything is kept. Raises EncoderManifestError, WeightsError, NetworkError and
    NotAddedError.
    """
    if not file.is_file():
        raise NotAddedError(f"{file} is no file: name a manifest (TOML), or a file of weights")
    return _add_encoder(settings, file) if file.suffix == ".toml" else _add_weights(settings, file)


def _add_encoder(settings: Settings, file: Path) -> str:
    manifest = read_manifest(file)
    _check_is_new(settings, manifest, file)
    _check_is_run(manifest)
    own = [one for one in manifest.weights if _is_beside(one, file.parent)]
    check_network(file.parent / manifest.weights_for(WeightsRole.NETWORK).file, manifest)
    folder = settings.encoders_folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as made:
        whole = Path(made) / manifest.name
        whole.mkdir()
        for one in own:
            _copy(file.parent / one.file, whole / one.file, one.sha256)
        shutil.copyfile(file, whole / MANIFEST_FILE)
        whole.rename(folder / manifest.name)  # all of it at once, or nothing
    missing = [
        f". {problem}" for problem in (*weights_problems(settings, manifest), *_lacks_threshold(settings, manifest))
    ]
    return f"{manifest.name} is added as {manifest.id}, of {manifest.output.dimensions} dimensions{''.join(missing)}"


def _lacks_threshold(settings: Settings, manifest: EncoderManifest) -> list[str]:
    try:
        Thresholds(settings).check(manifest.name)
    except NoThresholdError as error:
        return [f"Before anybody is compared by it: {error}"]
    return []


def _check_is_new(settings: Settings, manifest: EncoderManifest, file: Path) -> None:
    if manifest.name in SHIPPED:
        raise NotAddedError(f"{file}: {manifest.name} ships with facematch: give yours another name")
    for known in known_encoders(settings.encoders_folder).values():
        if known.name == manifest.name:
            raise NotAddedError(
                f"{file}: there is an encoder {known.name} ({known.id}) already: give yours another name"
            )
        if known.id == manifest.id:
            raise NotAddedError(
                f"{file}: its embeddings are those of {known.name}, which is there. If they are not, raise pipeline"
            )


def _check_is_run(manifest: EncoderManifest) -> None:
    """Whether it is of the one kind that is run of others' encoders: YuNet's landmarks, a template, a network."""
    kind = shipped("sface")
    if manifest.alignment.by != "template":
        raise NotAddedError(f'{manifest.name}: alignment.by = "dlib" is for face_recognition alone: use "template"')
    if manifest.detectors != kind.detectors:
        raise NotAddedError(
            f'{manifest.name}: detectors are cpu = "{kind.detectors.cpu}", gpu = "{kind.detectors.gpu}"'
        )
    landmarks = kind.weights_for(WeightsRole.LANDMARKS)
    if manifest.weights_for(WeightsRole.LANDMARKS).sha256 != landmarks.sha256:
        raise NotAddedError(
            f"{manifest.name}: landmarks are found by {landmarks.file} alone: take its [[weights]] from `facematch "
            "encoder show sface`"
        )


def _is_beside(one: WeightsFile, folder: Path) -> bool:
    """Whether a file is beside the manifest, as it must be; not of what ships with facematch. Raises WeightsError."""
    path = folder / one.file
    if not path.is_file():
        if one.role is WeightsRole.NETWORK:
            raise WeightsError(f"{path} is not there: put it beside the manifest")
        return False
    if (found := file_digest(path)) != one.sha256:
        raise WeightsError(
            f"{path} is another file than its manifest names: its SHA-256 is {found}, not {one.sha256}. Put the right "
            "file there, or its SHA-256 into the manifest"
        )
    return True


def _add_weights(settings: Settings, file: Path) -> str:
    digest = file_digest(file)
    for manifest in map(shipped, SHIPPED):
        for one in manifest.weights:
            if one.sha256 == digest:
                folder = settings.encoders_folder / manifest.name
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(dir=folder, prefix=".") as made:
                    _copy(file, Path(made) / one.file, digest)
                    (Path(made) / one.file).replace(folder / one.file)
                return f"{one.file} is kept for {manifest.name}"
    raise NotAddedError(
        f"{file} (SHA-256 {digest}) is no file that a shipped encoder needs: to add an encoder of your own name its "
        "manifest; `facematch encoder show sface` shows one"
    )


def _copy(source: Path, target: Path, digest: str) -> None:
    shutil.copyfile(source, target)
    if file_digest(target) != digest:
        raise NotAddedError(f"{source} changed while it was copied: add it again")
