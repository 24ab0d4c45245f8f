"""`facematch encoder`: an encoder of one's own is added whole or not at all; weights are those of their manifest."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from typer.testing import CliRunner, Result

from consumers.faces.networks.onnx_network import OnnxNetwork
from consumers.faces.networks.stored import weights_path
from consumers.faces.networks.weights import WeightsError
from deploy.cli import app
from schemas.encoders.known import encoder_named, read_manifest, shipped
from schemas.settings import Settings
from tests.networks import NETWORK, SIDE, small_graph, write_own

CHIPS = np.random.default_rng(2).integers(0, 256, (5, SIDE, SIDE, 3)).astype(np.uint8)
OTHERS_WEIGHTS = "7f" * 32


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where encoders are added."""
    monkeypatch.setenv("FACEMATCH_ENCODERS", str(tmp_path / "encoders"))
    monkeypatch.setenv("FACEMATCH_MODEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "300")
    return tmp_path / "encoders"


def facematch(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["encoder", *map(str, arguments)], catch_exceptions=False)


def refused(done: Result) -> str:
    """What a refusal says, in one line."""
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    return " ".join(done.output.replace("│", " ").split())


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_encoder_of_256_numbers_is_added_with_its_network(folder: Path, tmp_path: Path) -> None:
    path = write_own(tmp_path / "mine")
    manifest = read_manifest(path)
    done = facematch("add", path)
    assert done.exit_code == 0, done.output
    assert f"own is added as {manifest.id}, of 256 dimensions" in done.output
    assert "Before anybody is compared by it: encoder own has no threshold" in done.output
    assert files(folder) == {"own/manifest.toml": path.read_bytes(), f"own/{NETWORK}": small_graph()}
    assert encoder_named(folder, manifest.id) == manifest


def test_what_was_added_is_listed_and_shown_as_it_was_written(folder: Path, tmp_path: Path) -> None:
    path = write_own(tmp_path / "mine")
    facematch("add", path)
    listed = facematch("list").output
    for name, numbers in (("face_recognition", 128), ("sface", 128), ("own", 256)):
        (line,) = (line for line in listed.splitlines() if f"│ {name} " in line)
        assert str(numbers) in line
        assert encoder_named(folder, name).id in line
    shown = facematch("show", "own").output
    assert shown == f"# id: {read_manifest(path).id}\n{path.read_text()}"


def test_a_manifest_that_is_shown_is_one(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "shown.toml").write_text(facematch("show", "sface").output)
    assert read_manifest(tmp_path / "shown.toml") == shipped("sface")


def changed_matrix(value: float) -> bytes:
    model = onnx.load_from_string(small_graph())
    (matrix,) = (one for one in model.graph.initializer if one.name == "matrix")
    numbers = numpy_helper.to_array(matrix).copy()
    numbers[0, 0] = value
    matrix.CopyFrom(numpy_helper.from_array(numbers, "matrix"))
    return bytes(model.SerializeToString())


def of_numbers(number_type: int) -> bytes:
    model = onnx.load_from_string(small_graph())
    model.graph.input[0].type.tensor_type.elem_type = number_type
    return bytes(model.SerializeToString())


def with_two_outputs() -> bytes:
    model = onnx.load_from_string(small_graph())
    model.graph.output.append(onnx.helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["n", 147]))
    return bytes(model.SerializeToString())


def with_weights_elsewhere() -> bytes:
    model = onnx.load_from_string(small_graph())
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], "weights.bin")
    return bytes(model.SerializeToString())


def that_mixes_faces() -> bytes:
    """As a network does whose batch normalisation is still that of training."""
    model = onnx.load_from_string(small_graph())
    last = model.graph.node[-1]
    last.output[0] = "alone"
    model.graph.node.append(onnx.helper.make_node("ReduceMean", ["alone"], ["mean"], axes=[0], keepdims=1))
    model.graph.node.append(onnx.helper.make_node("Sub", ["alone", "mean"], ["centred"]))
    model.graph.node.append(onnx.helper.make_node("Add", ["centred", "bias"], ["embedding"]))
    model.graph.initializer.append(numpy_helper.from_array(np.ones(256, np.float32), "bias"))
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("network", "values", "problem"),
    [
        (small_graph(), {"dimensions": "128"}, "its output is float of any × 256"),
        (small_graph(), {"dimensions": "32"}, "output.dimensions"),
        (small_graph(side=98), {}, "its input is float of any × 3 × 98 × 98"),
        (small_graph(batch=8), {}, "its input is float of 8 × 3 × 112 × 112"),
        (of_numbers(TensorProto.DOUBLE), {}, "its input is double"),
        (with_two_outputs(), {}, "1 inputs and 2 outputs"),
        (with_weights_elsewhere(), {}, "weights in another file"),
        (changed_matrix(np.nan), {}, "not finite"),
        (changed_matrix(np.inf), {}, "not finite"),
        (small_graph(of_numbers=1e6), {"normalised": "false"}, "a length of"),
        (that_mixes_faces(), {}, "depends on the faces beside it"),
        (small_graph()[:-2000], {}, "own.onnx"),
        (b"a photo", {}, "own.onnx"),
        (b"", {}, "own.onnx"),
        (small_graph(), {"name": '"sface"'}, "ships with facematch"),
        (small_graph(), {"mirror": '"maybe"'}, "input.mirror"),
        (small_graph(), {"cpu": '"hog"'}, "detectors are"),
        (small_graph(), {"role": '"network"'}, "exactly one file"),
        (small_graph(), {"file": '"own.bin"'}, "two have one name"),
        (small_graph(), {"by": '"dlib"'}, "template"),
    ],
)
def test_what_is_wrong_is_refused_in_a_line_and_nothing_is_kept(
    folder: Path, tmp_path: Path, network: bytes, values: Any, problem: str
) -> None:
    path = write_own(tmp_path / "mine", network, **values)
    facematch("add", write_own(tmp_path / "before", name='"before"', pipeline="9"))
    kept = files(tmp_path)
    assert problem in refused(facematch("add", path))
    assert files(tmp_path) == kept


def test_a_manifest_without_its_network_or_with_another_is_refused(folder: Path, tmp_path: Path) -> None:
    path = write_own(tmp_path / "mine")
    (tmp_path / "mine" / NETWORK).write_bytes(small_graph(of_numbers=2))
    assert "is another file than its manifest names: its SHA-256 is" in refused(facematch("add", path))
    (tmp_path / "mine" / NETWORK).unlink()
    assert "put it beside the manifest" in refused(facematch("add", path))
    assert "is no file" in refused(facematch("add", tmp_path / "missing.toml"))
    assert not folder.exists()


def test_other_landmarks_than_those_that_facematch_finds_are_refused(folder: Path, tmp_path: Path) -> None:
    path = write_own(tmp_path / "mine")
    landmarks = shipped("sface").weights[0].sha256
    path.write_text(path.read_text().replace(landmarks, OTHERS_WEIGHTS))
    assert "landmarks are found by" in refused(facematch("add", path))


@pytest.mark.parametrize(
    ("values", "problem"), [({}, "there is an encoder own"), ({"name": '"again"'}, "its embeddings are those of own")]
)
def test_an_encoder_that_is_there_is_not_replaced(folder: Path, tmp_path: Path, values: Any, problem: str) -> None:
    facematch("add", write_own(tmp_path / "mine"))
    kept = files(folder)
    assert problem in refused(facematch("add", write_own(tmp_path / "second", **values)))
    assert files(folder) == kept


def test_weights_of_an_encoder_that_ships_are_kept_and_no_others(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the network cannot be reached, whoever has the file names it; whatever its name is."""
    had = tmp_path / "from-a-stick.bin"
    had.write_bytes(b"weights")
    assert "is no file that a shipped encoder needs" in refused(facematch("add", had))
    (own, *others) = shipped("sface").weights
    wanted = own.model_copy(update={"sha256": hashlib.sha256(b"weights").hexdigest()})
    manifest = shipped("sface").model_copy(update={"weights": (wanted, *others)})
    monkeypatch.setattr("deploy.encoders.adding.shipped", lambda _: manifest)
    assert facematch("add", had).exit_code == 0
    assert files(folder) == {f"sface/{wanted.file}": b"weights"}


@pytest.mark.parametrize("place", ["encoders/own", "encoders/sface", "cache/encoders/sface"])
def test_weights_are_found_beside_the_manifest_with_what_ships_and_in_the_image(
    folder: Path, tmp_path: Path, place: str
) -> None:
    manifest, settings = read_manifest(write_own(tmp_path / "mine")), Settings()
    one = manifest.weights[0].model_copy(update={"sha256": hashlib.sha256(b"weights").hexdigest()})
    path = tmp_path / place / one.file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    assert weights_path(settings, manifest, one) == path
    path.write_bytes(b"others")
    with pytest.raises(WeightsError, match="is another file"):
        weights_path(settings, manifest, one)


def test_an_unknown_encoder_is_refused(folder: Path) -> None:
    for command in (("show", "sfaec"), ("verify", "--encoder", "sfaec")):
        assert "did you mean sface?" in refused(facematch(*command))


def test_weights_that_are_others_or_missing_do_not_verify(folder: Path, tmp_path: Path) -> None:
    facematch("add", write_own(tmp_path / "mine"))
    done = facematch("verify", "--encoder", "own")
    assert done.exit_code == 1
    assert "face_detection_yunet_2023mar.onnx, which own needs, is not there" in done.output
    (folder / "own" / NETWORK).write_bytes(small_graph(of_numbers=2))
    assert "is another file than the manifest of own names" in facematch("verify", "--encoder", "own").output


@pytest.mark.parametrize("batch", ["n", 1])
def test_the_network_is_given_what_the_manifest_says(tmp_path: Path, batch: int | str) -> None:
    """Channels in that order, less the mean, times the scale; the face and its mirror image; of length 1."""
    path = write_own(tmp_path, small_graph(batch=batch), mean="[1.0, 2.0, 3.0]", scale="0.5")
    graph = onnx.load_from_string(small_graph())
    matrix, one = (numpy_helper.to_array(value).astype(np.float64) for value in graph.graph.initializer)

    def alone(pixels: Any) -> Any:
        given = (pixels[..., ::-1] - np.array([1.0, 2.0, 3.0])) * 0.5
        means = given.reshape(7, 16, 7, 16, 3).mean(axis=(1, 3)).transpose(2, 0, 1)
        return (means.ravel() + one) @ matrix

    expected = np.stack([alone(chip) + alone(chip[:, ::-1]) for chip in CHIPS.astype(np.float64)])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    network = OnnxNetwork(tmp_path / NETWORK, read_manifest(path))
    embeddings = network.embed(CHIPS)
    assert embeddings.dtype == np.float32
    assert np.abs(embeddings - expected).max() < 1e-5
    assert network.embed(CHIPS[:0]).shape == (0, 256)
