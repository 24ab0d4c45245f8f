"""What is said on the topics. Every event is immutable; its key and its meaning stand here and nowhere else."""

import base64
import binascii
import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, Literal, Self
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from schemas.identity import uuid_of
from schemas.shard import MOST_SHARDS, Shard

EMBEDDING_DIMENSIONS = 128
_EMBEDDING_BYTES = EMBEDDING_DIMENSIONS * 4
_REFUSED = b"\xff" * _EMBEDDING_BYTES  # NaN
_PAIR_NAMESPACE = UUID("5ba1b2c8-3a3c-5c0e-9d5e-0f5b6c1d7a10")
_as_json = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


def _embedding_from_wire(value: Any) -> NDArray[np.float32]:
    if isinstance(value, np.ndarray):
        embedding = value.astype("<f4", copy=True)
        embedding.flags.writeable = False
    else:
        embedding = np.frombuffer(_bytes_of(value), dtype="<f4")
    if embedding.shape != (EMBEDDING_DIMENSIONS,):
        raise ValueError(f"an embedding has shape ({EMBEDDING_DIMENSIONS},), this one {embedding.shape}")
    if not np.isfinite(embedding).all():
        raise ValueError("an embedding holds finite numbers only")
    return embedding


def _bytes_of(text: Any) -> bytes:
    try:
        raw = binascii.a2b_base64(text, strict_mode=True)
    except (TypeError, ValueError):
        raise ValueError("an embedding is base64 text") from None
    if len(raw) != _EMBEDDING_BYTES:
        raise ValueError(f"an embedding has {_EMBEDDING_BYTES} bytes, this one has {len(raw)}")
    return raw


def _embedding_to_wire(embedding: NDArray[np.float32]) -> str:
    return base64.b64encode(embedding.astype("<f4").tobytes()).decode()


Embedding = Annotated[
    NDArray[np.float32],
    PlainValidator(_embedding_from_wire),
    PlainSerializer(_embedding_to_wire, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "contentEncoding": "base64",
            "minLength": 684,
            "maxLength": 684,
            "description": "128 little-endian float32 (512 bytes), base64",
        }
    ),
]

CollectionName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,128}$"),
    Field(
        description="The scope within which duplicates are sought: a programme, a country, a region. "
        "Nothing is ever compared across collections."
    ),
]
IndividualId = Annotated[
    str,
    StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,256}$"),
    Field(description="The registration system's own id of the individual, unique within the collection."),
]
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]  # Postgres stores no NUL
Revision = Annotated[
    int,
    Field(
        strict=True,
        ge=1,
        le=2**63 - 1,
        description="Grows with every change to the individual. Wherever two revisions meet, the higher "
        "one wins, in any order of arrival.",
    ),
]
EncoderId = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9._+-]{1,64}$"),
    Field(
        description="Names the weights and the pipeline that made the embedding. Embeddings of different "
        "encoders are never compared."
    ),
]
Distance = Annotated[
    float,
    Field(ge=0, allow_inf_nan=False, description="Euclidean distance between the two embeddings; no unit."),
]


Count = Annotated[int, Field(strict=True, ge=0, le=2**63 - 1)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def individual_key(collection: str, individual_id: str) -> str:
    """The key of every record about one individual. A collection's name has no slash, so it splits back."""
    return f"{collection}/{individual_id}"


def check_key(key: str, shard: Shard) -> str:
    """The key of a check: the individual's; of one shard among several preceded by @2/8/.

    So none overwrites another's.
    """
    return key if shard.count == 1 else f"@{shard}/{key}"


class Event(BaseModel):
    """What all events share: they are immutable, unknown fields are ignored, and they know their key."""

    model_config = ConfigDict(frozen=True, extra="ignore", arbitrary_types_allowed=True, hide_input_in_errors=True)

    collection: CollectionName

    @property
    def key(self) -> str:
        """The Kafka key; compaction keeps the latest record of each."""
        raise NotImplementedError


class IndividualEvent(Event):
    """An event about one revision of one individual."""

    individual_id: IndividualId
    revision: Revision

    @property
    def key(self) -> str:
        return individual_key(self.collection, self.individual_id)


class Photo(BaseModel):
    """Where the photo is, or the photo itself. Exactly one of the two."""

    model_config = ConfigDict(
        frozen=True,
        hide_input_in_errors=True,
        json_schema_extra={"oneOf": [{"required": ["uri"]}, {"required": ["inline"]}]},
    )

    uri: Text | None = Field(
        default=None,
        min_length=1,
        max_length=4096,
        description="Where the encoder reads the photo: file://, s3://, https:// and whatever fsspec knows.",
    )
    inline: str | None = Field(
        default=None,
        repr=False,
        description="The photo file itself, base64, for small photos only (setting inline_photo_bytes).",
        json_schema_extra={"contentEncoding": "base64"},
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.uri is None) == (self.inline is None):
            raise ValueError("a photo has either a uri or inline bytes")
        return self


class Detector(StrEnum):
    """How a face is found: HOG in the CPU pool, CNN in the GPU pool."""

    HOG = "hog"
    CNN = "cnn"


class Registration(IndividualEvent):
    """What a registration system says of an individual: the whole of it, not what changed."""

    photo: Photo = Field(description="The registration photo. It has one subject.")
    detector: Detector | None = Field(
        default=None, description="Asks for a detector; 'cnn' sends the photo to the GPU pool at once."
    )
    attributes: dict[Text, Text] = Field(
        default_factory=dict, description="Anything else worth showing a reviewer. Kept, never interpreted."
    )


class IndividualCreated(Registration):
    """An individual was registered, with a photo."""


class IndividualUpdated(Registration):
    """An individual's registration changed: the whole of it as it is now, under a higher revision."""

    moved_from: CollectionName | None = Field(
        default=None,
        description="The collection that the individual was in before, where that is another. Nothing of them stays "
        "there: revisions up to this one are erased from it.",
    )

    @model_validator(mode="after")
    def _moves(self) -> Self:
        if self.moved_from == self.collection:
            raise ValueError("moved_from is another collection than the one that the individual is in now")
        return self


class IndividualDeleted(IndividualEvent):
    """An individual is to be erased; the revision is higher than any before."""


class IndividualErased(Event):
    """An individual was erased, or moved away: what never counts again, of whom nothing but a keyed hash is kept."""

    digest: str = Field(
        pattern=r"^[0-9a-f]{64}$",
        description="HMAC-SHA-256 of collection/individual_id, in hexadecimal: who has the key can ask for somebody, "
        "nobody can read from it who it is.",
    )
    key_id: str = Field(pattern=r"^[0-9a-f]{8}$", description="Which key made the digest; it says nothing about it.")
    revision: Revision

    @property
    def key(self) -> str:
        return self.digest


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
        description="How sure the detector is. HOG: from 0, a clear frontal face has 1 to 3; CNN: about 1."
    )
    sharpness: float = Field(
        ge=0,
        description="Variance of the Laplacian of the aligned face (150 x 150 pixels, grey 0 to 255): "
        "below 50 it looks blurred.",
    )
    brightness: float = Field(ge=0, le=255, description="Mean grey of the aligned face: 0 is black, 255 white.")
    frontality: float = Field(
        ge=0,
        le=1,
        description="1 where the base of the nose lies midway between the eyes, 0 where it lies below one of them: "
        "how far the head is turned to the side.",
    )


class EncodingComputed(IndividualEvent):
    """The face in an individual's photo, as 128 numbers."""

    encoder: EncoderId
    embedding: Embedding = Field(repr=False)
    face: FaceBox
    detector: Detector = Field(description="What found the face.")
    quality: Quality = Field(description="How good the face is for comparing.")


@dataclass(frozen=True, slots=True, repr=False)
class EncodingAsSent:
    """What is sent as an EncodingComputed, and judged as that is but for its embedding, which is text still.

    For whoever reads them by the million: `embeddings_of` reads and judges the embeddings of many at once.
    """

    collection: CollectionName
    individual_id: IndividualId
    revision: Revision
    encoder: EncoderId
    embedding: str
    face: FaceBox
    detector: Detector
    quality: Quality


def embeddings_of(texts: Iterable[str]) -> NDArray[np.float32]:
    """Embeddings as they were sent, (n, 128) float32. Of one that EncodingComputed refuses not all are finite."""
    raw = []
    for text in texts:
        try:
            raw.append(_bytes_of(text))
        except ValueError:
            raw.append(_REFUSED)
    return np.frombuffer(b"".join(raw), dtype="<f4").reshape(-1, EMBEDDING_DIMENSIONS)


class EncodingErased(IndividualEvent):
    """The tombstone of an erased individual: a null value whose revision travels in the headers."""


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


class Member(BaseModel):
    """One side of a pair."""

    model_config = ConfigDict(frozen=True)

    individual_id: IndividualId
    revision: Revision


def pair_id(collection: str, encoder: str, one: str, other: str) -> str:
    """The id of a pair: a UUID (version 5) of the collection, the encoder and the two ids in their order.

    Any repetition of a finding, by any process, therefore is the same row.
    """
    return uuid_of(_PAIR_NAMESPACE, _as_json([collection, encoder, *sorted((one, other))]))


def _check_order(a: str, b: str) -> None:
    if not a < b:
        raise ValueError("a pair has two different individuals, the smaller id first")


class PairEvent(Event):
    """An event about a pair of individuals; `a` has the smaller id."""

    encoder: EncoderId
    a: Member
    b: Member

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _check_order(self.a.individual_id, self.b.individual_id)
        return self

    @cached_property
    def pair_id(self) -> str:
        """See `pair_id`."""
        return pair_id(self.collection, self.encoder, self.a.individual_id, self.b.individual_id)

    @property
    def key(self) -> str:
        return self.pair_id


class DuplicateFound(PairEvent):
    """Two registrations look like the same person: a candidate for a person to review, never a verdict."""

    distance: Distance
    threshold: Distance = Field(description="Pairs at most this far apart are found.")


class RetractionReason(StrEnum):
    """Why a pair no longer holds."""

    UPDATED = "updated"
    ERASED = "erased"
    THRESHOLD = "threshold"


class DuplicateRetracted(PairEvent):
    """A pair that was found at these revisions no longer holds. What is found at higher ones is not touched by it."""

    reason: RetractionReason = Field(description="Why it no longer holds.")
    distance: Distance | None = Field(default=None, description="How far apart they were found to be.")
    threshold: Distance | None = Field(default=None, description="The threshold under which they were found.")


class IndividualChecked(IndividualEvent):
    """An individual was compared with everyone registered before, or with the share of them that one shard keeps.

    Where several shards share the work, everyone was compared once each of them has said so of the same revision.
    """

    encoder: EncoderId
    duplicates: int = Field(
        ge=0,
        le=2**31 - 1,
        description="How many of those before look like the same person; of several shards, those of this one alone.",
    )
    truncated: bool = Field(
        default=False,
        description="Whether more were found than there are DuplicateFound of them: those are of the nearest.",
    )
    shard: int = Field(default=1, ge=1, le=MOST_SHARDS, description="Which of the shards says so, from 1.")
    shards: int = Field(default=1, ge=1, le=MOST_SHARDS, description="How many shards share the work.")

    @model_validator(mode="after")
    def _is_a_shard(self) -> Self:
        Shard(self.shard, self.shards)
        return self

    @property
    def key(self) -> str:
        """See `check_key`."""
        return check_key(super().key, Shard(self.shard, self.shards))


class IndexParameters(BaseModel):
    """hnswlib's parameters of an index."""

    model_config = ConfigDict(frozen=True)

    m: Count = Field(description="Links of each node.")
    ef_construction: Count = Field(description="Candidates looked at for them.")
    ef: Count = Field(description="Candidates looked at in a search.")


class MeasuredRecall(BaseModel):
    """The share of pairs within the threshold that an index finds, against exact search of a random sample."""

    model_config = ConfigDict(frozen=True)

    recall: float = Field(ge=0, le=1, description="Of all pairs, or the mean over people: whichever is less.")
    low: float = Field(ge=0, le=1, description="Lower end of the 95 % confidence interval.")
    high: float = Field(ge=0, le=1, description="Upper end of the 95 % confidence interval.")
    people: Count = Field(description="Size of the sample.")
    made_up: bool = Field(
        default=False,
        description="Whether the sample is of places near people, since people drawn at random have too few pairs.",
    )
    pairs: Count = Field(description="Pairs that exact search finds of it.")
    floor: float = Field(ge=0, le=1, description="The least that is good enough.")


class PairCounts(BaseModel):
    """What a compaction came to."""

    model_config = ConfigDict(frozen=True)

    kept: Count = Field(description="Known before, and right.")
    found: Count = Field(description="Missed before: published as DuplicateFound.")
    retracted: Count = Field(description="No longer right: published as DuplicateRetracted.")


class CompactionCertified(Event):
    """The index of a collection was built anew from the log, and its pairs compared with what had been found.

    Of several shards each certifies its own part; of several encoders each has a certificate.
    """

    certificate_id: str = Field(
        pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", description="Of this certificate alone: a UUID."
    )
    encoder: EncoderId | None = Field(default=None, description="Absent where nobody ever had an embedding.")
    shard: int = Field(default=1, ge=1, le=MOST_SHARDS, description="Which of the shards this is, from 1.")
    shards: int = Field(default=1, ge=1, le=MOST_SHARDS, description="How many shards share the collection.")
    partition: Count = Field(description="Of the topic encodings.")
    offset: Count = Field(description="The log below this offset was read.")
    people: Count = Field(description="Living individuals in the index.")
    threshold: Distance = Field(description="Pairs at most this far apart hold.")
    index: IndexParameters | None = Field(default=None, description="Absent where nobody is living.")
    recall: MeasuredRecall | None = Field(default=None, description="Absent where nobody is living.")
    pairs: PairCounts = Field(description="What was known of pairs, and what was put right.")
    checked: Count = Field(
        description="Of whom nobody had said that they were compared: published as IndividualChecked."
    )
    in_service: bool = Field(
        description="Whether matchers were handed the index. One below the recall floor is not: the one before stays."
    )
    checksum: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 of the SHA-256s of the segment's chunks, in their order, in hexadecimal.",
    )
    began_at: AwareDatetime = Field(description="When the work on this collection began.")
    seconds: dict[Text, Seconds] = Field(description="What took how long, by the part of the work.")
    memory_mb: float = Field(ge=0, allow_inf_nan=False, description="The most memory that the process had.")

    @property
    def key(self) -> str:
        return self.certificate_id


class PairDecided(Event):
    """What a reviewer said of a pair of individuals; `a` has the smaller id.

    It holds whatever becomes of their photos: of whichever revisions, by whichever encoder they are found.
    """

    encoder: EncoderId
    a: IndividualId
    b: IndividualId
    verdict: Literal["same", "different"] = Field(description="Whether both registrations are one person.")
    by: Text = Field(min_length=1, max_length=256, description="Who decided.")
    note: Text = Field(default="", max_length=4096, description="Why, in the reviewer's words.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _check_order(self.a, self.b)
        return self

    @property
    def key(self) -> str:
        return pair_id(self.collection, self.encoder, self.a, self.b)


class KeyErased(Event):
    """A null value: what was said under its key was about somebody who was erased. Forget it.

    Headers: its collection.
    """

    erased_key: str = Field(min_length=1, description="Of the record, and of those before it that are to be forgotten.")

    @property
    def key(self) -> str:
        return self.erased_key


class FindingErased(KeyErased):
    """A null value on `duplicates`: the pair, or the check, was of somebody who was erased. Forget it."""


class DecisionErased(KeyErased):
    """A null value on `decisions`: the pair was of somebody who was erased. Forget it."""


EVENT_TYPES: dict[str, type[Event]] = {
    event.__name__: event
    for event in (
        IndividualCreated,
        IndividualUpdated,
        IndividualDeleted,
        IndividualErased,
        EncodingComputed,
        EncodingErased,
        EncodingRejected,
        DuplicateFound,
        DuplicateRetracted,
        IndividualChecked,
        FindingErased,
        PairDecided,
        DecisionErased,
        CompactionCertified,
    )
}
