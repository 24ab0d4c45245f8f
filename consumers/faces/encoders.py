"""Encoders, opened: a manifest → what finds faces in a pool, and what makes embeddings of them."""

from collections.abc import Mapping

from consumers.faces.any_way_up import AnyWayUp
from consumers.faces.detectors import HOG_LONG_SIDES, CnnDetector, FaceDetector, HogDetector
from consumers.faces.encoder import Encoder, FaceEncoder, models_folder
from consumers.faces.networks.stored import weights_path
from consumers.faces.networks.yunet import Yunet
from consumers.faces.stood_upright import StoodUpright
from consumers.faces.template_encoder import TemplateEncoder
from consumers.faces.yunet_detector import LONG_SIDES, YunetDetector
from schemas.encoders.known import encoder_named
from schemas.encoders.manifest import EncoderManifest, FaceFinder, WeightsRole
from schemas.settings import Settings

# The score of a face upright from which on nobody looks any further, and by how much one that is turned must be better.
_SURE: Mapping[FaceFinder, tuple[float, float]] = {"yunet": (0.9, 0.0), "hog": (0.5, 0.2), "cnn": (0.9, 0.1)}


def open_encoder(settings: Settings, name: str) -> Encoder:
    """The encoder of that name. Raises NoSuchEncoderError, EncoderManifestError, WeightsError and CacheError."""
    manifest, cache = encoder_named(settings.encoders_folder, name), settings.model_cache
    network = weights_path(settings, manifest, manifest.weights_for(WeightsRole.NETWORK))
    if manifest.alignment.by == "dlib":
        return FaceEncoder(network.parent, cache)
    return TemplateEncoder(manifest, network, _yunet(settings, manifest), cache)


def open_detector(settings: Settings, name: str, is_gpu: bool, batch: int) -> FaceDetector:
    """What finds faces for the encoder of that name, in the CPU pool or the GPU pool. Raises as `open_encoder`."""
    manifest, cache = encoder_named(settings.encoders_folder, name), settings.model_cache
    finder = manifest.detectors.gpu if is_gpu else manifest.detectors.cpu
    match finder:
        case "cnn":
            cnn = CnnDetector(models_folder(), cache, batch)
            return StoodUpright(AnyWayUp(cnn, cnn, *_SURE["cnn"]), cache)
        case "hog":
            return AnyWayUp(HogDetector(cache), HogDetector(cache, HOG_LONG_SIDES[:1]), *_SURE["hog"])
        case "yunet":
            network = _yunet(settings, manifest)
            return AnyWayUp(YunetDetector(network), YunetDetector(network, LONG_SIDES[:2]), *_SURE["yunet"])


def _yunet(settings: Settings, manifest: EncoderManifest) -> Yunet:
    landmarks = manifest.weights_for(WeightsRole.LANDMARKS)
    return Yunet(weights_path(settings, manifest, landmarks), settings.model_cache)
