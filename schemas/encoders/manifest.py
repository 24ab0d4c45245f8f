"""The manifest of an encoder: its weights, what is done with a face, and its operating points. Pure."""

import hashlib
import json
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from schemas.events.encodings import FEWEST_DIMENSIONS, MOST_DIMENSIONS

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
# With the hash and the pipeline it is an EncoderId of at most 64 characters.
Network = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Point = tuple[Number, Number]
FaceFinder = Literal["hog", "yunet", "cnn"]
_HASH_LENGTH = 8  # of the id


class _ManifestPart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WeightsRole(StrEnum):
    """What a file of weights is for. An embedding depends on the first two: a detector's box is no more than a hint."""

    LANDMARKS = "landmarks"
    NETWORK = "network"
    DETECTOR = "detector"


class WeightsFile(_ManifestPart):
    """A file of weights. One with another SHA-256 is refused."""

    role: WeightsRole
    file: FileName
    sha256: Sha256
    licence: Words = Field(description="SPDX's name of it, where there is one.")
    source: Words = Field(description="Who made it, and where it comes from.")
    training_data: Words = Field(description="What is known of the photos that it was trained on.")


class Detectors(_ManifestPart):
    """What finds faces in each pool."""

    cpu: FaceFinder
    gpu: FaceFinder


class Alignment(_ManifestPart):
    """How a face is cut from the photo: a square of `side` pixels.

    By "dlib" it is the chip of dlib's landmarks. By "template" it is what a similarity transform makes of the photo
    that brings five landmarks to `template`: both eyes, the tip of the nose, both corners of the mouth, in pixels, as
    (x, y), those first that are on the left of the picture.
    """

    by: Literal["dlib", "template"]
    side: int = Field(ge=32, le=1024)
    template: tuple[Point, Point, Point, Point, Point] | None = None

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if (self.by == "template") != (self.template is not None):
            raise ValueError('by = "template" needs a template of five points; by = "dlib" has none')
        outside = [point for point in self.template or () if not all(0 <= place < self.side for place in point)]
        if outside:
            raise ValueError(f"{outside[0]} of the template is outside a square of {self.side} pixels")
        return self


class NetworkInput(_ManifestPart):
    """What the network is given of a pixel: (value - mean) · scale in each channel, value from 0 to 255.

    With `mirror` the face and its mirror image go in, and the embedding is the mean of both.
    """

    channels: Literal["rgb", "bgr"]
    mean: tuple[Number, Number, Number]
    scale: float = Field(gt=0, allow_inf_nan=False)
    mirror: bool


class NetworkOutput(_ManifestPart):
    """What comes of it. `normalised`: each embedding is divided by its length, and has length 1."""

    dimensions: int = Field(ge=FEWEST_DIMENSIONS, le=MOST_DIMENSIONS)
    normalised: bool


class OperatingPoint(_ManifestPart):
    """A threshold, and what was measured there."""

    fmr: float = Field(gt=0, lt=1, description="False match rate: the share of strangers' pairs within the threshold.")
    threshold: float = Field(gt=0, lt=2, description="Euclidean distance.")
    recall: Share = Field(description="The share of one person's pairs within the threshold.")
    recall_low: Share = Field(description="Lower end of its interval of 95 % confidence.")
    recall_high: Share = Field(description="Upper end of it.")
    pairs: int = Field(
        ge=0, description="Strangers' pairs within the threshold: fewer than 10 are no more than a hint."
    )
    photos: Words = Field(description="On which photos.")

    @model_validator(mode="after")
    def _is_within(self) -> Self:
        if not self.recall_low <= self.recall <= self.recall_high:
            raise ValueError("recall_low, recall and recall_high are in no order")
        return self


class EncoderManifest(_ManifestPart):
    """An encoder: whatever its embeddings depend on, and what is known of it.

    `network` begins its id. `pipeline` is raised whenever other embeddings come out of the same photos and weights.
    """

    name: Name
    network: Network
    pipeline: int = Field(ge=1, le=9999)
    detectors: Detectors
    alignment: Alignment
    input: NetworkInput
    output: NetworkOutput
    weights: tuple[WeightsFile, ...]
    operating_points: tuple[OperatingPoint, ...] = ()

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        for role in (WeightsRole.NETWORK, WeightsRole.LANDMARKS):
            if sum(one.role is role for one in self.weights) != 1:
                raise ValueError(f'weights: exactly one file has role = "{role}"')
        files = [one.file for one in self.weights]
        if len(set(files)) < len(files):
            raise ValueError("weights: two have one name")
        points = self.points()
        for wider, narrower in pairwise(points):
            if not (wider.fmr > narrower.fmr and wider.threshold > narrower.threshold):
                raise ValueError("operating_points: a larger fmr has a larger threshold, and each stands once")
        return self

    @property
    def id(self) -> str:
        """The id of the encoder in events: it follows from what an embedding depends on, and from nothing else.

        What dlib does with a face is its pipeline's; what a template says is a part of the hash.
        """
        files = sorted((one for one in self.weights if one.role is not WeightsRole.DETECTOR), key=lambda one: one.role)
        depends_on = "".join(one.sha256 for one in files)
        if self.alignment.by == "template":
            parts = (self.alignment, self.input, self.output)
            depends_on += json.dumps([part.model_dump(mode="json") for part in parts], sort_keys=True)
        digest = hashlib.sha256(depends_on.encode()).hexdigest()
        return f"{self.network}-{digest[:_HASH_LENGTH]}.{self.pipeline}"

    def weights_for(self, role: WeightsRole) -> WeightsFile:
        """The file of the network, or of the landmarks."""
        return next(one for one in self.weights if one.role is role)

    def points(self) -> tuple[OperatingPoint, ...]:
        """The operating points, that of the largest false match rate first."""
        return tuple(sorted(self.operating_points, key=lambda one: one.fmr, reverse=True))
