"""What a user names becomes registrations, or a message that says what is wrong with which line."""

import json
from pathlib import Path

import pytest

from producers.submit.entries import Entry, ManifestError, read_paths


def read(*paths: Path) -> list[Entry]:
    return list(read_paths(list(paths), "default"))


def test_a_folder_gives_every_photo_in_it_its_path_as_id(tmp_path: Path) -> None:
    for name in ("b.png", "ann/1.JPG", "ann/2.jpeg", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    entries = read(tmp_path)
    assert [e.registration.individual_id for e in entries if e.registration] == ["ann/1.JPG", "ann/2.jpeg", "b.png"]
    registration = entries[2].registration
    assert registration is not None
    assert (registration.collection, registration.revision) == ("default", 1)
    assert registration.photo.uri == (tmp_path / "b.png").resolve().as_uri()


def test_a_csv_may_name_collection_revision_and_attributes(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(
        "individual_id,photo,collection,revision,household\n"
        "1,photos/1.jpg,camp-a,3,H-1\n"
        "2,https://photos.example.org/2.jpg,,,\n",
        encoding="utf-8-sig",
    )
    first, second = (entry.registration for entry in read(path))
    assert first is not None
    assert second is not None
    assert (first.individual_id, first.collection, first.revision) == ("1", "camp-a", 3)
    assert first.attributes == {"household": "H-1"}
    assert first.photo.uri == (tmp_path / "photos" / "1.jpg").resolve().as_uri()
    assert (second.collection, second.revision, second.attributes) == ("default", 1, {})
    assert second.photo.uri == "https://photos.example.org/2.jpg"


def test_json_lines_likewise(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    row = {"individual_id": "1", "photo": "1.jpg", "revision": 2, "age": 7, "detector": "cnn"}
    path.write_text(json.dumps(row) + "\n\n")
    (entry,) = read(path)
    assert entry.registration is not None
    assert (entry.registration.revision, entry.registration.detector) == (2, "cnn")
    assert entry.registration.attributes == {"age": "7"}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "no JSON"),
        ("[]", "no JSON object"),
        ('{"individual_id": "1"}', "photo is missing"),
        ('{"individual_id": "1", "photo": 5}', "photo is missing"),
        ('{"photo": "a.jpg"}', "individual_id"),
        ('{"individual_id": "1", "photo": "a.jpg", "revision": "one"}', "no whole number"),
        ('{"individual_id": "1", "photo": "a.jpg", "revision": 0}', "revision"),
        ('{"individual_id": "1", "photo": "a.jpg", "collection": "a/b"}', "collection"),
        ('{"individual_id": "1", "photo": "a.jpg", "detector": "eyes"}', "detector"),
    ],
)
def test_a_bad_line_is_named_and_the_others_go_on(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text(line + '\n{"individual_id": "2", "photo": "a.jpg"}\n')
    bad, good = read(path)
    assert bad.registration is None
    assert problem in bad.problem
    assert bad.name == f"{path}, line 1"
    assert good.registration is not None


def test_csv_lines_with_too_many_or_too_few_fields_are_named(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("individual_id,photo\n1\n2,b.jpg,c\n3,c.jpg\n")
    entries = read(path)
    assert [entry.registration is None for entry in entries] == [True, True, False]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("list.csv", b"name,picture\n", "individual_id, photo"),
        ("list.csv", b"", "individual_id, photo"),
        ("list.csv", b"individual_id,photo\n\xff\xfe\n", "UTF-8"),
        ("nothing-here.csv", None, "no such file"),
        ("folder", None, "no such file"),
    ],
)
def test_a_list_that_cannot_be_used_is_an_error(tmp_path: Path, name: str, content: bytes | None, problem: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ManifestError, match=problem):
        read(tmp_path / name)


def test_a_folder_without_photos_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no photos in it"):
        read(tmp_path)
