"""Events about an individual's embedding."""

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
)

from schemas.events.base import (
    CollectionName,
    Detector,
    EncoderId,
    IndividualEvent,
    IndividualId,
    Revision,
    Text,
    individual_of,
)

FEWEST_DIMENSIONS, MOST_DIMENSIONS = 64, 1024  # that an encoder may have
EMBEDDING_DIMENSIONS = 128  # those of the encoders that ship
_NUMBER_BYTES = 4
# Encoders make vectors of length 1, or of a few tens. A vector of zeros is what a program has that found no face; that
# of a length beyond 1e18 cannot be compared: half its square, by which rows are, is no float32 any more.
LEAST_NORM, GREATEST_NORM = 1e-3, 1e3
_DIMENSIONS_IN_WORDS = f"{FEWEST_DIMENSIONS} to {MOST_DIMENSIONS}"


def _embedding_from_wire(value: Any) -> NDArray[np.float32]:
    if isinstance(value, np.ndarray):
        embedding = value.astype("<f4", copy=True)
        embedding.flags.writeable = False
    else:
        embedding = np.frombuffer(_bytes_of(value), dtype="<f4")
    if embedding.ndim != 1 or not FEWEST_DIMENSIONS <= len(embedding) <= MOST_DIMENSIONS:
        raise ValueError(f"an embedding has {_DIMENSIONS_IN_WORDS} numbers, this one has shape {embedding.shape}")
    if not np.isfinite(embedding).all():
        raise ValueError("an embedding holds finite numbers only")
    if not _have_norms(embedding[np.newaxis])[0]:
        raise ValueError(f"an embedding has a length of {LEAST_NORM:g} to {GREATEST_NORM:g}, as encoders make them")
    return embedding


def _have_norms(embeddings: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether the Euclidean length of each is one that encoders make: (n, d) float32 to (n,) bool."""
    squares = np.einsum("ij,ij->i", embeddings, embeddings)  # infinite where it overflows, which is refused
    return np.asarray((squares >= LEAST_NORM**2) & (squares <= GREATEST_NORM**2))


def _bytes_of(text: Any) -> bytes:
    try:
        raw = binascii.a2b_base64(text, strict_mode=True)
    except (TypeError, ValueError):
        raise ValueError("an embedding is base64 text") from None
    numbers, rest = divmod(len(raw), _NUMBER_BYTES)
    if rest or not FEWEST_DIMENSIONS <= numbers <= MOST_DIMENSIONS:
        raise ValueError(f"an embedding has {_DIMENSIONS_IN_WORDS} numbers of 4 bytes, this one has {len(raw)} bytes")
    return raw


def _embedding_to_wire(embedding: NDArray[np.float32]) -> str:
    return base64.b64encode(embedding.astype("<f4").tobytes()).decode()


def _base64_length(dimensions: int) -> int:
    """Characters of an embedding of so many dimensions, with the padding."""
    return -(-dimensions * _NUMBER_BYTES // 3) * 4


Embedding = Annotated[
    NDArray[np.float32],
    PlainValidator(_embedding_from_wire),
    PlainSerializer(_embedding_to_wire, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "contentEncoding": "base64",
            "minLength": _base64_length(FEWEST_DIMENSIONS),
            "maxLength": _base64_length(MOST_DIMENSIONS),
            "description": "64 to 1024 little-endian float32, base64: as many as the encoder has dimensions, which are "
            "128 (684 characters) for those that ship; of a Euclidean length of 0.001 to 1000",
        }
    ),
]


class FaceBox(BaseModel):
    """Where the face is in the upright photo."""

    model_config = ConfigDict(frozen=True)

    top: int = Field(description="pixels from the top edge; negative where the face is cut off there")
    right: int = Field(description="pixels from the left edge; beyond the width where the face is cut off")
    bottom: int = Field(description="pixels from the top edge; beyond the height where the face is cut off")
    left: int = Field(description="pixels from the left edge; negative where the face is cut off there")


class Quality(BaseModel):
    """How good the face in a photo is for comparing. More is better in each."""

    model_config = ConfigDict(frozen=True)

    face_pixels: float = Field(ge=0, description="Width of the face in the photo as it was sent, in pixels.")
    detector_score: float = Field(
        description="How sure the detector is. HOG: from 0, a clear frontal face has 1 to 3; YuNet: 0 to 1, a clear "
        "face has 0.9; CNN: about 1."
    )
    sharpness: float = Field(
        ge=0,
        description="Variance of the Laplacian of the aligned face (150 x 150 pixels, by sface 112 x 112; grey 0 to "
        "255): below 50 it looks blurred.",
    )
    brightness: float = Field(ge=0, le=255, description="Mean grey of the aligned face: 0 is black, 255 white.")
    frontality: float = Field(
        ge=0,
        le=1,
        description="1 where the nose lies midway between the eyes, 0 where it lies below one of them: "
        "how far the head is turned to the side.",
    )


class Rank(NamedTuple):
    """Which of two records of an individual counts: that of the higher rank, of equal ones the later in the log.

    The higher revision; of one revision the erasure. In whatever order they arrive.
    """

    revision: int
    is_erasure: bool


def rank_keys(
    revisions: NDArray[np.int64], are_erasures: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Ranks of n records, as np.lexsort takes keys: the more significant one last. (n,) of each."""
    return are_erasures, revisions


class EncodingComputed(IndividualEvent):
    """The face in an individual's photo, as numbers: as many as its encoder has dimensions."""

    encoder: EncoderId
    embedding: Embedding = Field(repr=False)
    face: FaceBox
    detector: Detector = Field(description="What found the face.")
    quality: Quality = Field(description="How good the face is for comparing.")

    @property
    def rank(self) -> Rank:
        """See `Rank`."""
        return Rank(self.revision, is_erasure=False)


@dataclass(frozen=True, slots=True, repr=False)
class EncodingAsSent:
    """An EncodingComputed as it was sent: checked as that is, but for its embedding, which still is text.

    To read millions: `embeddings_of` decodes and checks the embeddings of many at once.
    """

    collection: CollectionName
    individual_id: IndividualId
    revision: Revision
    encoder: EncoderId
    embedding: str
    face: FaceBox
    detector: Detector
    quality: Quality

    @property
    def rank(self) -> Rank:
        """See `Rank`."""
        return Rank(self.revision, is_erasure=False)


class EmbeddingsAt(NamedTuple):
    """Embeddings of one number of dimensions, (n, d) float32, and where each stands, (n,) int64, ascending."""

    positions: NDArray[np.int64]
    embeddings: NDArray[np.float32]


def embeddings_of(texts: Iterable[str]) -> dict[int, EmbeddingsAt]:
    """Embeddings as they were sent, by their dimensions. What EncodingComputed refuses is left out."""
    raw: dict[int, tuple[list[int], list[bytes]]] = {}
    for position, text in enumerate(texts):
        try:
            one = _bytes_of(text)
        except ValueError:
            continue
        positions, parts = raw.setdefault(len(one) // _NUMBER_BYTES, ([], []))
        positions.append(position)
        parts.append(one)
    found = {}
    for dimensions, (positions, parts) in raw.items():
        embeddings = np.frombuffer(b"".join(parts), dtype="<f4").reshape(-1, dimensions)
        good = _have_norms(embeddings)  # no number that is not finite leads to such a length
        found[dimensions] = EmbeddingsAt(np.array(positions, dtype=np.int64)[good], embeddings[good])
    return found


class EncodingErased(IndividualEvent):
    """The tombstone of an erased individual: a null value whose revision travels in the headers."""

    NULL_HEADERS: ClassVar[Mapping[str, Mapping[str, str]]] = {"revision": {"type": "string", "pattern": "^[0-9]+$"}}
    NULL_NEEDS = "a key collection/individual and a header revision, a whole number"

    @property
    def rank(self) -> Rank:
        """See `Rank`."""
        return Rank(self.revision, is_erasure=True)

    @classmethod
    def from_null(cls, key: str, headers: Mapping[str, str]) -> Self:
        collection, individual_id = individual_of(key)
        return cls(collection=collection, individual_id=individual_id, revision=int(headers["revision"]))

    def null_headers(self) -> dict[str, str]:
        return {"revision": str(self.revision)}


EncodingEvent = EncodingComputed | EncodingErased


class RejectionReason(StrEnum):
    """Why a photo could not be encoded."""

    PHOTO_UNREADABLE = "photo_unreadable"
    PHOTO_TOO_LARGE = "photo_too_large"
    PHOTO_NOT_FOUND = "photo_not_found"
    PHOTO_UNAVAILABLE = "photo_unavailable"
    PHOTO_FORBIDDEN = "photo_forbidden"
    NO_FACE = "no_face"
    SEVERAL_FACES = "several_faces"
    FACE_TOO_SMALL = "face_too_small"
    FACE_UNCERTAIN = "face_uncertain"
    FACE_BLURRED = "face_blurred"
    FACE_TOO_DARK = "face_too_dark"
    FACE_TURNED = "face_turned"


class EncodingRejected(IndividualEvent):
    """A photo could not be encoded: the individual is not compared with anyone until a new revision comes."""

    reason: RejectionReason = Field(description="For programs.")
    detail: Text = Field(description="For people: what is wrong and what to do about it.")
    event_id: str = Field(description="ce_id of the event that this answers.")
