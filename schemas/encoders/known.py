"""The encoders that there are: those that ship, and those that somebody added to a folder."""

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import resources
from pathlib import Path

from pydantic import ValidationError

from schemas.encoders.manifest import EncoderManifest
from schemas.faults import UserFault

FACE_RECOGNITION, SFACE = SHIPPED = ("face_recognition", "sface")
MANIFEST_FILE = "manifest.toml"
_PROBLEMS = 3  # named at once


class EncoderManifestError(UserFault):
    """A manifest that cannot be read. The text says what is wrong with it."""


class NoSuchEncoderError(UserFault):
    """No encoder has that name or id."""


def parse_manifest(text: str, where: str) -> EncoderManifest:
    """The manifest in a TOML text; `where` is named if it is wrong. Raises EncoderManifestError."""
    try:
        return EncoderManifest.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise EncoderManifestError(f"{where} is no TOML: {error}") from None
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        problems = [_problem(one["loc"], one["msg"]) for one in found]
        more = [f"and {len(problems) - _PROBLEMS} more"] if len(problems) > _PROBLEMS else []
        what = "; ".join(problems[:_PROBLEMS] + more)
        raise EncoderManifestError(
            f"{where} is no manifest of an encoder: {what}. `facematch encoder show sface` shows one"
        ) from None


def _problem(where: tuple[int | str, ...], what: str) -> str:
    field = ".".join(map(str, where))
    what = what.removeprefix("Value error, ")
    if what == "Field required":
        return f"{field} is missing"
    return f"{field}: {what}" if field else what


def read_manifest(path: Path) -> EncoderManifest:
    """The manifest in a file. Raises EncoderManifestError."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise EncoderManifestError(f"{path} cannot be read: {why}") from None
    return parse_manifest(text, str(path))


def shipped_text(name: str) -> str:
    """The manifest of a shipped encoder as it is written."""
    return (resources.files("schemas.encoders") / f"{name}.toml").read_text()


def shipped(name: str) -> EncoderManifest:
    """The manifest of a shipped encoder."""
    return parse_manifest(shipped_text(name), f"{name}.toml")


def known_encoders(folder: Path) -> Mapping[str, EncoderManifest]:
    """The encoders by their names: those that ship, then those added to a folder, each in a folder of its own.

    Raises EncoderManifestError.
    """
    known = {name: shipped(name) for name in SHIPPED}
    for path in sorted(folder.glob(f"*/{MANIFEST_FILE}")):
        if not path.parent.name.startswith("."):  # one that is being added
            manifest = read_manifest(path)
            known[manifest.name] = manifest
    return known


def encoder_named(folder: Path, name: str) -> EncoderManifest:
    """The encoder of that name or id. Raises NoSuchEncoderError and EncoderManifestError."""
    known = known_encoders(folder)
    for manifest in known.values():
        if name in (manifest.name, manifest.id):
            return manifest
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else "`facematch encoder list` lists them all"
    raise NoSuchEncoderError(f"no encoder is called {name!r}: {hint}")
