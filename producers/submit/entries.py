"""Photos, folders and lists from the command line → registrations. Reads files, sends nothing."""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from schemas.events.registrations import IndividualCreated, Photo
from schemas.faults import UserFault

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".jp2", ".heic"})
COLUMNS = ("individual_id", "photo", "collection", "revision", "detector")


class ManifestError(UserFault):
    """A path or a list that cannot be used at all. The text says why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a list, or one photo: a registration, or the problem with it. `name`: its place, for messages."""

    name: str
    registration: IndividualCreated | None
    problem: str = ""


def read_paths(paths: list[Path], collection: str) -> Iterator[Entry]:
    """The entries of photos, folders of photos, CSV and JSON Lines files.

    The individual's id is the photo's file name, within a folder its path from there. Lists have columns
    `individual_id` and `photo` (a URI, or a path from where the list is), may have `collection`, `revision` and
    `detector`; any further column is kept as an attribute. Raises ManifestError for a path that is none of these.
    """
    for path in paths:
        if path.is_dir():
            yield from _folder(path, collection)
        elif not path.exists():
            raise ManifestError(f"{path}: no such file or folder")
        elif path.suffix.lower() == ".csv":
            yield from _list(path, _csv_rows(path), collection)
        elif path.suffix.lower() in {".jsonl", ".ndjson"}:
            yield from _list(path, _json_rows(path), collection)
        else:
            yield _photo(path, path.name, collection)


def photos_in(folder: Path) -> list[Path]:
    """Every photo below a folder, in order."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in PHOTO_SUFFIXES and path.is_file())


def _folder(folder: Path, collection: str) -> Iterator[Entry]:
    photos = photos_in(folder)
    if not photos:
        raise ManifestError(f"{folder}: no photos in it ({', '.join(sorted(PHOTO_SUFFIXES))})")
    for path in photos:
        yield _photo(path, path.relative_to(folder).as_posix(), collection)


def _photo(path: Path, individual_id: str, collection: str) -> Entry:
    row = {"individual_id": individual_id, "photo": path.resolve().as_uri()}
    return _entry(str(path), row, path.parent, collection)


def _list(path: Path, rows: Iterator[tuple[int, Any]], collection: str) -> Iterator[Entry]:
    for line, row in rows:
        name = f"{path}, line {line}"
        if isinstance(row, Mapping):
            yield _entry(name, row, path.parent, collection)
        else:
            yield Entry(name, None, str(row))


def _csv_rows(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            reader = csv.DictReader(file, strict=True)
            missing = {"individual_id", "photo"} - set(reader.fieldnames or ())
            if missing:
                raise ManifestError(
                    f"{path}: the first line must name the columns; missing: {', '.join(sorted(missing))}"
                )
            for row in reader:
                if None in row or None in row.values():
                    yield reader.line_num, "it has more or fewer fields than the first line"
                else:
                    yield reader.line_num, {name: value for name, value in row.items() if value != ""}
        except (csv.Error, UnicodeDecodeError) as error:
            raise ManifestError(f"{path}: not a CSV file in UTF-8 ({error})") from None


def _json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                yield number, f"it is no JSON: {error}"
            else:
                yield number, row if isinstance(row, dict) else "it is no JSON object"


def _entry(name: str, row: Mapping[str, Any], base: Path, collection: str) -> Entry:
    try:
        photo = row.get("photo")
        if not isinstance(photo, str):
            return Entry(name, None, "photo is missing")
        registration = IndividualCreated(
            collection=row.get("collection", collection),
            individual_id=row.get("individual_id", ""),
            revision=_whole_number(row.get("revision", 1)),
            photo=Photo(uri=_uri(photo, base)),
            detector=row.get("detector"),
            attributes={key: str(value) for key, value in row.items() if key not in COLUMNS},
        )
    except ValidationError as error:
        return Entry(name, None, "; ".join(f"{part['loc'][0]}: {part['msg']}" for part in error.errors()))
    except ValueError as error:
        return Entry(name, None, str(error))
    return Entry(name, registration)


def _whole_number(value: object) -> int:
    try:
        return int(str(value))
    except ValueError:
        raise ValueError(f"revision: {value!r} is no whole number") from None


def _uri(photo: str, base: Path) -> str:
    """A URI as it is; a path, relative to the list, as a file URI."""
    if len(urlsplit(photo).scheme) > 1:
        return photo
    return (base / photo).resolve().as_uri()
