"""Which encoder a deployment begins with: noted once, when nobody has an embedding yet."""

import structlog

from deploy.setup.weights import WeightsUnavailableError, fetch_weights
from runtime.servers.deployment import ENCODER, read_notes, write_note
from runtime.servers.log import TopicLog
from schemas.encoders.known import FACE_RECOGNITION, SFACE, encoder_named
from schemas.faults import UserFault
from schemas.settings import Settings
from schemas.thresholds import Thresholds
from schemas.topics import ENCODINGS

log = structlog.stdlib.get_logger(__name__)

_CLIENT = "setup"


class EncoderChosenError(UserFault):
    """The deployment has embeddings of another encoder. The text says what to do."""


def choose_encoder(settings: Settings, wanted: str | None = None) -> str:
    """Note the encoder of this deployment, where none is noted, and return the one that is.

    That is `wanted`, else sface, whose weights are fetched, or face_recognition where they cannot be had. A deployment
    that has embeddings keeps what made them. Raises EncoderChosenError where `wanted` is another, NoSuchEncoderError,
    NoThresholdError, and WeightsUnavailableError where `wanted` is sface and cannot be had.
    """
    noted, has_embeddings = read_notes(settings, _CLIENT).get(ENCODER), _has_embeddings(settings)
    if wanted is not None:
        wanted = encoder_named(settings.encoders_folder, wanted).name
        Thresholds(settings).check(wanted)
        if has_embeddings and wanted != (noted or FACE_RECOGNITION):
            raise EncoderChosenError(
                f"people of namespace {settings.namespace} have embeddings of {noted or FACE_RECOGNITION}, which are "
                f"never compared with those of {wanted}: give a new deployment another FACEMATCH_NAMESPACE"
            )
    chosen = wanted or noted or (FACE_RECOGNITION if has_embeddings else _best_to_be_had(settings))
    if chosen == SFACE:
        fetch_weights(settings)
    if chosen != noted:
        write_note(settings, _CLIENT, ENCODER, chosen)
    return chosen


def _best_to_be_had(settings: Settings) -> str:
    try:
        fetch_weights(settings)
    except WeightsUnavailableError as error:
        log.warning("photos are encoded by face_recognition, which finds fewer people", why=str(error))
        return FACE_RECOGNITION
    return SFACE


def _has_embeddings(settings: Settings) -> bool:
    with TopicLog(settings, ENCODINGS, _CLIENT) as log:
        return any(span.end for span in log.spans().values())
