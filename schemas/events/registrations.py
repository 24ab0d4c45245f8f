"""Events about an individual's registration."""

import hashlib
import json
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from schemas.events.base import CollectionName, Detector, Event, IndividualEvent, Revision, Subject, Text


def _as_text(value: Any) -> Any:
    """A number or a truth value as JSON writes it; anything else as it is."""
    return json.dumps(value) if isinstance(value, bool | int | float) else value


_WRITTEN_AS = ({"type": "string", "pattern": r"^[^\x00]*$"}, {"type": "number"}, {"type": "boolean"})
AttributeValue = Annotated[Text, BeforeValidator(_as_text), WithJsonSchema({"anyOf": list(_WRITTEN_AS)})]


class Photo(BaseModel):
    """Where the photo is, or the photo itself. Exactly one of the two."""

    model_config = ConfigDict(
        frozen=True,
        hide_input_in_errors=True,
        json_schema_extra={"oneOf": [{"required": [one], "properties": {one: True}} for one in ("uri", "inline")]},
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
        description="The photo file itself, base64, for small photos only (setting inline_photo_bytes). "
        "Line breaks and blanks in it do not count.",
        json_schema_extra={"contentEncoding": "base64"},
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.uri is None) == (self.inline is None):
            raise ValueError("a photo has either a uri or inline bytes")
        return self


class Registration(IndividualEvent):
    """An individual as the registration system knows it: the whole of it, not what changed."""

    photo: Photo = Field(description="The registration photo. It has one subject.")
    detector: Detector | None = Field(
        default=None, description="Asks for a detector; 'cnn' sends the photo to the GPU pool at once."
    )
    attributes: dict[Text, AttributeValue] = Field(
        default_factory=dict,
        description="Anything else worth showing a reviewer. Kept as text, never interpreted.",
    )

    @property
    def content(self) -> str:
        """SHA-256, in hexadecimal, of what is said of the individual: the photo, the detector and the attributes.

        Two events with one revision of an individual have one content, or somebody has made a mistake.
        """
        said = self.model_dump(mode="json", include={"photo", "detector", "attributes"}, exclude_defaults=True)
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


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
    key_id: str = Field(pattern=r"^[0-9a-f]{8}$", description="Which key made the digest; it reveals nothing of it.")
    revision: Revision

    @property
    def key(self) -> str:
        return self.digest

    @property
    def key_rule(self) -> str:
        return "its digest"

    def subjects(self) -> tuple[Subject, ...]:
        return ()
