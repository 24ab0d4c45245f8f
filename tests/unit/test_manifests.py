"""An encoder is a manifest; its id follows from what its embeddings depend on, and from nothing else."""

from pathlib import Path
from typing import Any

import pytest

from consumers.faces.encoder import FaceEncoder, models_folder
from consumers.faces.networks.weights import file_digest
from schemas.encoders.known import (
    MANIFEST_FILE,
    SHIPPED,
    EncoderManifestError,
    NoSuchEncoderError,
    encoder_named,
    known_encoders,
    parse_manifest,
    read_manifest,
    shipped,
    shipped_text,
)
from schemas.encoders.manifest import EncoderManifest
from schemas.settings import Settings

OF_RUNNING_DEPLOYMENTS = "dlib-resnet-v1-db0eeebc.1"


def changed(name: str, *path: str | int, value: Any) -> EncoderManifest:
    """A shipped manifest with another value at a place."""
    fields: Any = shipped(name).model_dump(mode="json")
    at = fields
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return EncoderManifest.model_validate(fields)


def test_the_id_of_face_recognition_stays_that_of_running_deployments() -> None:
    manifest = shipped("face_recognition")
    assert manifest.id == OF_RUNNING_DEPLOYMENTS
    assert FaceEncoder(models_folder(), Settings().model_cache).id == manifest.id


def test_the_weights_of_face_recognition_are_those_that_its_manifest_names() -> None:
    for one in shipped("face_recognition").weights:
        assert file_digest(models_folder() / one.file) == one.sha256


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("network",), "other"),
        (("pipeline",), 2),
        (("weights", 0, "sha256"), "0" * 64),
        (("weights", 1, "sha256"), "0" * 64),
        (("alignment", "template", 0), [38.0, 51.6963]),
        (("input", "channels"), "bgr"),
        (("input", "mirror"), True),
        (("output", "dimensions"), 256),
        (("output", "normalised"), False),
    ],
)
def test_the_id_is_another_if_embeddings_would_be(path: tuple[str | int, ...], value: Any) -> None:
    assert changed("sface", *path, value=value).id != shipped("sface").id


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("name",), "other"),
        (("weights", 2, "sha256"), "0" * 64),
        (("weights", 1, "licence"), "unknown"),
        (("detectors", "gpu"), "yunet"),
        (("operating_points",), []),
    ],
)
def test_the_id_stays_where_embeddings_do(path: tuple[str | int, ...], value: Any) -> None:
    assert changed("sface", *path, value=value).id == shipped("sface").id


def test_the_id_does_not_depend_on_the_order_of_the_weights() -> None:
    fields = shipped("sface").model_dump(mode="json")
    assert EncoderManifest.model_validate(fields | {"weights": fields["weights"][::-1]}).id == shipped("sface").id


def test_operating_points_are_handed_out_from_the_largest_false_match_rate_on() -> None:
    rates = [point.fmr for point in shipped("sface").points()]
    assert rates == sorted(rates, reverse=True)
    assert len(rates) > 1


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("pipeline = 1\n", "", "pipeline is missing"),
        ("dimensions = 128", "dimensions = 2000", "output.dimensions"),
        ("dimensions = 128", "dimensions = 63", "output.dimensions"),
        ('channels = "rgb"', 'channels = "grey"', "input.channels"),
        ("side = 112", "side = 64", "outside a square of 64 pixels"),
        ('by = "template"', 'by = "dlib"', "template"),
        ('role = "network"', 'role = "detector"', 'exactly one file has role = "network"'),
        ("[input]", "[inptu]", "inptu"),
        ("mirror = false", "mirror = fals", "no TOML"),
        ("mean = [0.0, 0.0, 0.0]", "mean = [nan, 0.0, 0.0]", "input.mean"),
        ("threshold = 1.081", "threshold = 1.0", "a larger fmr has a larger threshold"),
        ("recall_low = 0.967", "recall_low = 0.99", "in no order"),
        ('file = "face_recognition_sface_2021dec.onnx"', 'file = "../secret.onnx"', "weights.1.file"),
        ('name = "sface"', 'name = "../sface"', "name"),
    ],
)
def test_a_manifest_that_is_not_right_is_refused_with_what_is_wrong(before: str, after: str, problem: str) -> None:
    text = shipped_text("sface")
    assert before in text
    with pytest.raises(EncoderManifestError, match=r"own\.toml") as refused:
        parse_manifest(text.replace(before, after, 1), "own.toml")
    assert problem in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "photo.toml").write_bytes(b"\xff\xd8\xff")
    for name in ("photo.toml", "missing.toml"):
        with pytest.raises(EncoderManifestError, match=name):
            read_manifest(tmp_path / name)


def test_added_encoders_stand_behind_those_that_ship(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    text = shipped_text("sface").replace('name = "sface"', 'name = "own"').replace("pipeline = 1", "pipeline = 7")
    (tmp_path / "own" / MANIFEST_FILE).write_text(text)
    assert list(known_encoders(tmp_path)) == [*SHIPPED, "own"]
    own = encoder_named(tmp_path, "own")
    assert encoder_named(tmp_path, own.id) == own
    assert encoder_named(tmp_path, OF_RUNNING_DEPLOYMENTS).name == "face_recognition"


def test_an_unknown_encoder_is_refused_and_the_nearest_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoSuchEncoderError, match="did you mean sface"):
        encoder_named(tmp_path, "sfaec")
    with pytest.raises(NoSuchEncoderError, match="facematch encoder list"):
        encoder_named(tmp_path, "x")
