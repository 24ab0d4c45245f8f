"""All settings, in one object, made in an entry point and passed down.

Read from the environment (prefix FACEMATCH_), then from `.facematch/stack.env`, which the local stack writes
when it starts, then the defaults below.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

STACK_FOLDER = Path(".facematch")
STACK_ENV = STACK_FOLDER / "stack.env"

SeveralFaces = Literal["reject", "largest"]
Threshold = Annotated[float, Field(gt=0, lt=2)]


class CollectionSettings(BaseModel):
    """What a collection does otherwise than the rest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    threshold: Threshold | None = None
    several_faces: SeveralFaces | None = None


class Settings(BaseSettings):
    """Every setting of facematch."""

    model_config = SettingsConfigDict(
        env_prefix="FACEMATCH_", env_file=STACK_ENV, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    namespace: str = Field(
        default="facematch",
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        description="Put before every topic, consumer group and Redis key, so that tenants share a cluster.",
    )
    kafka: str = Field(
        default="127.0.0.1:9092", description="Kafka's bootstrap servers: host:port, separated by commas."
    )
    redis: str = Field(default="redis://127.0.0.1:6379/0", description="URL of Redis or Valkey.")
    postgres: str = Field(
        default="postgresql+psycopg2://postgres@127.0.0.1:5432/facematch",
        description="SQLAlchemy URL of the Postgres database.",
    )
    replication_factor: int = Field(
        default=1, ge=1, description="Copies of every topic that is created. Use 3 on a cluster."
    )

    threshold: Threshold = Field(
        default=0.45,
        description="Two embeddings at most this far apart (Euclidean) are a finding. Lower finds fewer.",
    )
    several_faces: SeveralFaces = Field(
        default="reject", description="A photo with several faces: reject it, or take the largest face."
    )
    collections: dict[str, CollectionSettings] = Field(
        default_factory=dict,
        description='What single collections do otherwise, as JSON: {"camp-a": {"several_faces": "largest"}}.',
    )

    photo_roots: list[str] | None = Field(
        default=None,
        description="Photos are read only below these URIs, as JSON: "
        '["file:///srv/photos/", "https://photos.example.org/"]. Unset: what was submitted from this machine.',
    )
    max_photo_bytes: int = Field(default=25_000_000, ge=1, description="Size limit of a photo file, in bytes.")
    max_photo_pixels: int = Field(default=50_000_000, ge=1, description="Size limit of a photo, in pixels.")
    inline_photo_bytes: int = Field(
        default=600_000,
        ge=1,
        le=700_000,
        description="A photo up to this size, in bytes, may travel inside its event; Kafka's own limit is near.",
    )
    photo_attempts: int = Field(
        default=6,
        ge=1,
        description="How often a photo store that does not answer is asked, with pauses of 0.5, 1, 2, 4 … s.",
    )
    photo_timeout_s: float = Field(default=10, gt=0, description="How long one attempt may take, in seconds.")

    encoder_processes: int = Field(
        default=0, ge=0, description="Processes of an encoder worker; 0: one for each core it may use."
    )
    match_batch: int = Field(default=256, ge=1, description="Newcomers that the matcher compares at once.")
    sink_batch: int = Field(default=1000, ge=1, description="Events that the sink writes in one transaction.")
    data_folder: Path = Field(
        default=STACK_FOLDER, description="Where the local stack and the list of submitted photo roots live."
    )

    def threshold_for(self, collection: str) -> float:
        """The collection's own threshold, or the general one."""
        own = self.collections.get(collection)
        return own.threshold if own and own.threshold is not None else self.threshold

    def several_faces_for(self, collection: str) -> SeveralFaces:
        """The collection's own rule, or the general one."""
        own = self.collections.get(collection)
        return own.several_faces if own and own.several_faces is not None else self.several_faces
