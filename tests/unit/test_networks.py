"""The two networks under onnxruntime: equal to dlib, built once, and shared by many processes."""

import importlib.util
import multiprocessing
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import dlib
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from PIL import Image

from consumers.faces.networks import cache, pyramid
from consumers.faces.networks.cache import cached_graph
from consumers.faces.networks.embedder import Embedder
from consumers.faces.networks.graphs import VERSION, build_mmod, build_resnet
from consumers.faces.networks.mmod import Detection, MmodDetector, candidates, rounded, suppress
from consumers.faces.networks.sessions import Session
from consumers.faces.networks.weights import WeightsError, read_network, read_suppression

Photo = NDArray[np.uint8]


def model_file(name: str) -> Path:
    spec = importlib.util.find_spec("face_recognition_models")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "models" / name


RESNET = model_file("dlib_face_recognition_resnet_model_v1.dat")
MMOD = model_file("mmod_human_face_detector.dat")
LANDMARKS = model_file("shape_predictor_5_face_landmarks.dat")

# The two float32 computations add in another order; each is up to 1e-6 from the one in float64.
SAME_EMBEDDING = 2e-6
SAME_SCORE = 1e-5


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache folder that the tests of the networks share."""
    return tmp_path_factory.mktemp("graphs")


@pytest.fixture(scope="module")
def embedder(graphs: Path) -> Embedder:
    return Embedder(RESNET, graphs)


@pytest.fixture(scope="module")
def detector(graphs: Path) -> MmodDetector:
    return MmodDetector(MMOD, graphs, batch=3)


@pytest.fixture(scope="module")
def reference() -> Any:
    """dlib's CNN detector."""
    return dlib.cnn_face_detection_model_v1(str(MMOD))


@pytest.fixture(scope="module")
def faces(photos: Path) -> dict[str, Image.Image]:
    """Of each demo photo with a whole face, a square around it that is twice as wide as the face."""
    find, squares = dlib.get_frontal_face_detector(), {}
    for path in sorted(photos.glob("*.jpg")):
        image = Image.open(path).convert("RGB")
        image.thumbnail((600, 600))
        for face in find(np.asarray(image)):
            x, y, side = face.center().x, face.center().y, face.width()
            squares[path.stem] = image.crop((x - side, y - side, x + side, y + side))
    assert {"biden", "obama", "obama2", "obama3"} <= squares.keys()
    return squares


def sized(image: Image.Image, width: int, height: int) -> Photo:
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def chips(faces: dict[str, Image.Image]) -> Photo:
    """The faces, aligned: (N, 150, 150, 3)."""
    landmarks = dlib.shape_predictor(str(LANDMARKS))
    whole = dlib.rectangle(75, 75, 225, 225)
    photos = [sized(face, 300, 300) for face in faces.values()]
    return np.stack([dlib.get_face_chip(photo, landmarks(photo, whole)) for photo in photos])


def test_embeddings_equal_those_of_dlib(embedder: Embedder, chips: Photo) -> None:
    network = dlib.face_recognition_model_v1(str(RESNET))
    expected = np.array([network.compute_face_descriptor(chip) for chip in chips])
    embeddings = embedder.embed(chips)
    assert embeddings.dtype == np.float32
    assert embeddings.shape == (len(chips), 128)
    assert np.linalg.norm(embeddings - expected, axis=1).max() < SAME_EMBEDDING


def test_an_embedding_does_not_depend_on_the_chips_beside_it(embedder: Embedder, chips: Photo) -> None:
    many = np.concatenate([chips] * 5)  # more than run at once
    each = np.concatenate([embedder.embed(chip[None]) for chip in chips])
    np.testing.assert_array_equal(embedder.embed(many), np.concatenate([each] * 5))


def test_no_chips_have_no_embeddings(embedder: Embedder) -> None:
    assert embedder.embed(np.empty((0, 150, 150, 3), dtype=np.uint8)).shape == (0, 128)


@pytest.mark.parametrize("chips", [np.zeros((1, 150, 149, 3), np.uint8), np.zeros((1, 150, 150, 3), np.float32)])
def test_what_is_no_chip_is_refused(embedder: Embedder, chips: Any) -> None:
    with pytest.raises(ValueError, match="chips are uint8"):
        embedder.embed(chips)


def test_onnxruntime_tells_nobody_what_it_runs(tmp_path: Path) -> None:
    """Whoever may be told is given an id, which is kept in the home folder. Under CI it tells nobody by itself."""
    command = [sys.executable, "-W", "ignore", "-c", "import consumers.faces.networks.sessions"]
    subprocess.run(command, env={"HOME": str(tmp_path)}, check=True)
    assert list(tmp_path.rglob("*")) == []


def assert_same_as_dlib(found: list[Detection], expected: Any) -> None:
    assert [(d.box.left, d.box.top, d.box.right, d.box.bottom) for d in found] == [
        (d.rect.left(), d.rect.top(), d.rect.right(), d.rect.bottom()) for d in expected
    ]
    np.testing.assert_allclose([d.score for d in found], [d.confidence for d in expected], atol=SAME_SCORE)


@pytest.mark.parametrize(("width", "height"), [(200, 200), (170, 233), (233, 170)])
@pytest.mark.parametrize("name", ["biden", "obama", "obama2", "obama3"])
def test_the_cnn_detector_finds_what_dlib_finds(
    detector: MmodDetector, reference: Any, faces: dict[str, Image.Image], name: str, width: int, height: int
) -> None:
    photo = sized(faces[name], width, height)
    (found,) = detector.detect([photo])
    assert len(found) == 1
    assert_same_as_dlib(found, reference(photo, 0))


@pytest.mark.parametrize("upsample", [1, 2])
def test_a_photo_is_enlarged_as_dlib_does(
    detector: MmodDetector, reference: Any, faces: dict[str, Image.Image], upsample: int
) -> None:
    photo = sized(faces["obama"], 240 // 2**upsample, 221 // 2**upsample)
    (found,) = detector.detect([photo], upsample)
    assert len(found) == 1
    assert_same_as_dlib(found, reference(photo, upsample))


def test_several_faces_come_best_first(detector: MmodDetector, reference: Any, faces: dict[str, Image.Image]) -> None:
    photo = np.concatenate([sized(faces[name], 200, 200) for name in ("biden", "obama", "obama2")], axis=1)
    (found,) = detector.detect([photo])
    assert len(found) == 3
    assert found[0].score > found[1].score > found[2].score
    assert_same_as_dlib(found, reference(photo, 0))


def test_photos_of_one_size_and_of_others_each_get_their_own_faces(
    detector: MmodDetector, faces: dict[str, Image.Image]
) -> None:
    sizes = [(200, 200), (180, 190), (200, 200), (200, 200), (200, 200)]
    names = ["obama", "biden", "biden", "obama2", "obama3"]
    several = [sized(faces[name], *size) for name, size in zip(names, sizes, strict=True)]
    alone = [detector.detect([photo])[0] for photo in several]
    together = detector.detect(several)
    assert all(len(found) == 1 for found in alone)
    assert len({str(found) for found in alone}) == len(several)
    assert [found[0].box for found in together] == [found[0].box for found in alone]
    assert detector.detect([]) == []


@pytest.mark.parametrize("upsample", [0, 1])
def test_an_array_may_be_a_view(detector: MmodDetector, faces: dict[str, Image.Image], upsample: int) -> None:
    photo = sized(faces["obama"], 200, 200)
    turned = np.ascontiguousarray(photo.transpose(1, 0, 2)).transpose(1, 0, 2)
    wider = np.concatenate([photo, photo], axis=1)[:, :200]
    ((face,), *others) = detector.detect([photo, turned, wider], upsample)
    assert others == [[face], [face]]


@pytest.mark.parametrize("shape", [(1, 1, 3), (6, 300, 3), (300, 5, 3), (90, 70, 3)])
def test_a_photo_too_small_for_a_face_has_none(detector: MmodDetector, shape: tuple[int, ...]) -> None:
    assert detector.detect([np.zeros(shape, dtype=np.uint8)]) == [[]]


@pytest.mark.parametrize("photo", [np.zeros((90, 90), np.uint8), np.zeros((90, 90, 3), np.float32)])
def test_what_is_no_photo_is_refused(detector: MmodDetector, photo: Any) -> None:
    with pytest.raises(ValueError, match="a photo is uint8"):
        detector.detect([photo])


@pytest.mark.parametrize(("height", "width"), [(480, 640), (640, 480), (250, 250), (90, 1000), (1000, 90), (7, 30)])
def test_levels_of_the_pyramid_lie_apart_and_off_the_edge(height: int, width: int) -> None:
    places = pyramid.layout(height, width)
    taken = np.zeros((places.height, places.width), dtype=int)
    for left, top, level_width, level_height in places.levels:
        taken[top : top + level_height, left : left + level_width] += 1
    assert places.levels[0] == (11, 11, width, height)
    assert taken.max() == 1
    assert taken.sum() == taken[11:-11, 11:-11].sum() == sum(level.width * level.height for level in places.levels)


def test_a_box_belongs_to_the_level_nearest_to_its_centre() -> None:
    levels = [pyramid.Level(11, 11, 60, 60), pyramid.Level(11, 81, 50, 50)]
    boxes = np.array([[11, 11, 21, 21], [11, 81, 21, 91], [6, 68, 16, 78]], dtype=np.float64)
    expected = np.array([[0, 0, 10, 10], [0.3, 0.3, 12.3, 12.3], [-5, 57, 5, 67]])
    np.testing.assert_allclose(pyramid.to_photo(boxes, levels), expected)


def test_candidates_are_positive_scores_the_best_first() -> None:
    scores = np.array([[0.0, 0.5, -1.0], [2.0, 0.0, -0.1]], dtype=np.float32)
    boxes, confidences = candidates(scores, window=80)
    np.testing.assert_array_equal(confidences, [2.0, 0.5])
    np.testing.assert_array_equal(boxes, [[14 - 39.5, 22 - 39.5, 14 + 39.5, 22 + 39.5], [-17.5, -25.5, 61.5, 53.5]])


def test_halves_are_rounded_away_from_zero() -> None:
    np.testing.assert_array_equal(rounded(np.array([0.5, 1.5, -0.5, -1.5, 1.4])), [1, 2, -1, -2, 1])


def test_of_boxes_that_overlap_the_best_stays() -> None:
    best, near, far = [0, 0, 9, 9], [4, 0, 13, 9], [5, 0, 14, 9]  # 60 of 140 and 50 of 150 pixels are shared
    boxes = np.array([best, near, far, [4, 0, 13, 9]], dtype=np.float64)
    assert suppress(boxes, overlap=0.34) == [0, 2]
    assert suppress(boxes[:0], overlap=0.34) == []


def test_a_graph_is_built_once(tmp_path: Path) -> None:
    built = []

    def build(weights: Path) -> onnx.ModelProto:
        built.append(weights)
        return build_mmod(weights)

    first, second = (cached_graph(tmp_path / "new", MMOD, build) for _ in range(2))
    assert first == second
    assert built == [MMOD]
    onnx.checker.check_model(str(first))


def test_a_damaged_graph_is_built_again(tmp_path: Path) -> None:
    path = cached_graph(tmp_path, MMOD, build_mmod)
    whole = path.read_bytes()
    damage = [whole[:-1], whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:], b""]
    for damaged in damage:
        path.write_bytes(damaged)
        assert cached_graph(tmp_path, MMOD, build_mmod).read_bytes() == whole
    path.with_suffix(".sha256").unlink()
    assert cached_graph(tmp_path, MMOD, build_mmod).read_bytes() == whole
    assert path.with_suffix(".sha256").exists()


def test_other_weights_or_another_builder_have_another_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / MMOD.name
    other.write_bytes(MMOD.read_bytes() + b"\0")
    paths = [cached_graph(tmp_path, weights, build_mmod) for weights in (MMOD, other)]
    monkeypatch.setattr(cache, "VERSION", VERSION + 1)
    paths.append(cached_graph(tmp_path, MMOD, build_mmod))
    assert len(set(paths)) == 3


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        cached_graph(tmp_path, MMOD, build_mmod)
    assert list(tmp_path.iterdir()) == []


def _open_at_once(folder: Path, start: Any) -> str:
    start.wait(timeout=60)
    return MmodDetector(MMOD, folder).provider


def test_several_processes_may_start_at_once(tmp_path: Path) -> None:
    processes = 4
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(processes) as pool:
        start = manager.Barrier(processes)
        opened = pool.starmap(_open_at_once, [(tmp_path, start)] * processes)
    assert len(opened) == processes
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".onnx", ".sha256"]


@pytest.mark.parametrize("size", [0, 1000, 500_000])
def test_weights_cut_short_say_what_to_do(tmp_path: Path, size: int) -> None:
    path = tmp_path / "cut.dat"
    path.write_bytes(MMOD.read_bytes()[:size])
    with pytest.raises(WeightsError, match=r"cut\.dat.*pip install --force-reinstall face_recognition_models"):
        read_network(path, convolutions=7)
    assert not list(tmp_path.glob("*.onnx"))


def test_weights_with_an_impossible_size_say_what_to_do(tmp_path: Path) -> None:
    content = MMOD.read_bytes()
    size = content.index(b"con_4") + len("con_4") + 3  # the second of the signature's tensor: 2 bytes, low first
    path = tmp_path / "odd.dat"
    path.write_bytes(content[: size - 1] + b"\x08" + b"\xff" * 8 + content[size + 2 :])
    with pytest.raises(WeightsError, match=r"odd\.dat.*cannot have the shape.*pip install"):
        read_network(path, convolutions=7)


def test_weights_of_the_other_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=re.escape("(29, 1) convolutions and dense layers, not (7, 0)")):
        cached_graph(tmp_path, RESNET, build_mmod)
    with pytest.raises(WeightsError, match="no MMOD detector"):
        read_suppression(RESNET)
    assert list(tmp_path.iterdir()) == []


def test_missing_weights_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.dat.*No such file.*pip install"):
        Embedder(tmp_path / "none.dat", tmp_path)


def test_a_session_says_what_runs_it(embedder: Embedder, detector: MmodDetector) -> None:
    expected = "cuda" if "CUDAExecutionProvider" in onnxruntime.get_available_providers() else "cpu"
    assert embedder.provider == detector.provider == expected


def test_a_session_gives_memory_back(graphs: Path) -> None:
    session = Session(cached_graph(graphs, MMOD, build_mmod))
    session.run(np.zeros((1, 3, 100, 100), dtype=np.float32))
    before = _resident_bytes()
    # 36 bytes a pixel while it runs: 90 MB. Twice, as what the first run left would show in the second.
    for height in (2500, 2400):
        session.run(np.zeros((1, 3, height, 1000), dtype=np.float32))
    assert _resident_bytes() - before < 40e6


def _resident_bytes() -> int:
    return 4096 * int(Path("/proc/self/statm").read_text().split()[1])


def test_the_graphs_are_the_same_each_time(tmp_path: Path) -> None:
    for build, weights in ((build_resnet, RESNET), (build_mmod, MMOD)):
        one, other = (build(weights).SerializeToString(deterministic=True) for _ in range(2))
        assert one == other
