"""All settings, in one object, made in an entry point and passed down.

Read from the environment (prefix FACEMATCH_), then from files `facematch_<setting>` in the folder of secrets, then from
`.facematch/stack.env`, which the local stack writes when it starts, then the defaults below.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FilePath,
    IPvAnyNetwork,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from schemas.addresses import check_address, without_password
from schemas.faults import UserFault

SECRETS = "FACEMATCH_SECRETS"  # names the folder of secrets
SECRETS_FOLDER = Path("/run/secrets/facematch")  # where it is unless that is set
_PREFIX = "FACEMATCH_"
STACK_FOLDER = Path(".facematch")
ENCODERS = "encoders"  # the folder of encoders in the model cache
STACK_ENV = STACK_FOLDER / "stack.env"

SeveralFaces = Literal["reject", "largest"]
Routing = Literal["cascade", "cpu", "gpu"]
LogFormat = Literal["text", "json"]
Threshold = Annotated[float, Field(gt=0, lt=2)]
Candidates = Annotated[float, Field(gt=0, le=1000)]
_ONE_FOR_ALL = "a threshold belongs to one encoder: type {}; without it, it follows from candidates_per_newcomer"


class MinimumQuality(BaseModel):
    """The least of each measure of `schemas.events.Quality`; a face below one is rejected. None: any will do.

    The defaults cost hardly anybody, and keep out what is no face, or hardly matches anybody.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    face_pixels: float | None = Field(default=None, ge=0)
    detector_score: float | None = 0.1
    sharpness: float | None = Field(default=1.3, ge=0)
    brightness: float | None = Field(default=15, ge=0, le=255)
    frontality: float | None = Field(default=None, ge=0, le=1)


class CollectionSettings(BaseModel):
    """What a collection does otherwise than the rest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    thresholds: dict[str, Threshold] = Field(default_factory=dict)
    candidates_per_newcomer: Candidates | None = None
    several_faces: SeveralFaces | None = None
    routing: Routing | None = None
    minimum_quality: MinimumQuality | None = None

    @model_validator(mode="before")
    @classmethod
    def _no_threshold_of_all_encoders(cls, given: Any) -> Any:
        if isinstance(given, dict) and "threshold" in given:
            raise ValueError(_ONE_FOR_ALL.format('"thresholds": {"face_recognition": 0.45}'))
        return given


class Settings(BaseSettings):
    """Every setting of facematch."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_file=STACK_ENV, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    namespace: str = Field(
        default="facematch",
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        description="Put before every topic, consumer group and Redis key, so that tenants share a cluster.",
    )
    kafka: str = Field(
        default="127.0.0.1:9092", description="Kafka's bootstrap servers: host:port, separated by commas."
    )
    kafka_tls: bool = Field(default=False, description="Talk to Kafka by TLS, and check who it is.")
    kafka_ca: FilePath | None = Field(
        default=None, description="PEM file of who signed Kafka's certificates. Unset: those whom the system trusts."
    )
    kafka_user: str | None = Field(
        default=None, description="Who this is to Kafka, by SCRAM-SHA-512; `facematch grants` lists who there may be."
    )
    kafka_password: SecretStr | None = Field(default=None, description="Password of kafka_user.")
    redis: str = Field(
        default="redis://127.0.0.1:6379/0", description="URL of Redis or Valkey; by TLS it begins with rediss://."
    )
    redis_ca: FilePath | None = Field(
        default=None, description="PEM file of who signed Redis' certificate. Unset: those whom the system trusts."
    )
    redis_user: str | None = Field(default=None, description="User name at Redis. Unset: that of the URL.")
    redis_password: SecretStr | None = Field(
        default=None, description="Password of redis_user. Unset: that of the URL."
    )
    postgres: str = Field(
        default="postgresql://postgres@127.0.0.1:5432/facematch", description="URL of the Postgres database."
    )
    postgres_ca: FilePath | None = Field(
        default=None,
        description="PEM file of who signed Postgres' certificate: by TLS alone, and it must be the one that the URL "
        "names (sslmode=verify-full). Unset: as in the URL's sslmode.",
    )
    postgres_user: str | None = Field(default=None, description="User name at Postgres. Unset: that of the URL.")
    postgres_password: SecretStr | None = Field(
        default=None, description="Password of postgres_user. Unset: that of the URL."
    )
    erasure_key: SecretStr | None = Field(
        default=None,
        description="Secret with which ids of erased individuals are hashed, at least 32 characters: the same for "
        "every worker, and kept as long as the data. Only who has it can tell whether somebody was erased.",
    )
    outbox: str | None = Field(
        default=None,
        description="URL (postgresql://…) of the registration system's database, which has the outbox table, with the "
        "user, the password and what else libpq knows (?sslmode=verify-full&sslrootcert=/etc/ca.pem) in it; let it "
        "come from a file. Unset: that of postgres, as set there.",
    )
    replication_factor: int = Field(
        default=1, ge=1, description="Copies of every topic that is created. Use 3 on a cluster."
    )

    http: str | None = Field(
        default=None,
        pattern=r"^(\[[0-9A-Fa-f:.]+\]|[^:/\s]+):[0-9]{1,5}$",
        description="host:port where a worker serves /metrics (for Prometheus), /healthz and /readyz. Port 0: "
        "any that is free. Unset: nowhere. Who reads it learns the names of collections, and nothing of individuals.",
    )

    candidates_per_newcomer: Candidates = Field(
        default=1,
        description="The review budget: how many strangers a newcomer may meet on average. The threshold follows from "
        "it, the encoder's operating points and the number of people in the collection.",
    )
    thresholds: dict[str, Threshold] = Field(
        default_factory=dict,
        description="Two embeddings of an encoder at most this far apart (Euclidean) are a finding, whatever the "
        'budget, as JSON, by names or ids: {"face_recognition": 0.45}.',
    )
    several_faces: SeveralFaces = Field(
        default="reject",
        description="A photo with several faces that may be the subject: reject it, or take the largest; "
        "what hangs out of the photo, is in a corner, or is a doubtful face counts as smaller.",
    )
    minimum_quality: MinimumQuality = Field(
        default=MinimumQuality(),
        description='Faces below any of these are rejected, as JSON: {"face_pixels": 60, "sharpness": 50, '
        '"brightness": 40, "frontality": 0.5, "detector_score": 0.3}. Of what is not named, detector_score is 0.1, '
        "sharpness 1.3 and brightness 15, and the others do not count; null: does not count.",
    )
    routing: Routing = Field(
        default="cascade",
        description="Which pool encodes: cascade (what the CPU pool finds no face in goes to the GPU pool), cpu, or "
        "gpu. An event that names a detector goes to that one's pool.",
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
    photo_private_networks: list[IPvAnyNetwork] = Field(
        default_factory=list,
        description="Networks in which a photo store may have a private, loopback or link-local address, as JSON: "
        '["10.20.0.0/16", "fd00:20::/64"]. Unset: photos on the web are read from public addresses only.',
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
    encoder_photo_s: int = Field(
        default=10,
        ge=1,
        description="Processor time that reading one photo may take, in seconds; then it is rejected. By the clock a "
        "batch may take 30 times as long: a busy machine rejects no photo.",
    )
    encoder_memory_mb: int = Field(
        default=1500, ge=500, description="Memory that a process of an encoder may take for data, in MB."
    )
    gpu_batch: int = Field(default=16, ge=1, description="Photos that a process of the GPU pool encodes at once.")
    photo_fetches: int = Field(
        default=16,
        ge=1,
        description="Photos that an encoder worker fetches at once. It holds at most twice as many, and four for each "
        "process, each up to max_photo_bytes.",
    )
    model_cache: Annotated[Path, AfterValidator(Path.expanduser)] = Field(
        default=Path("~/.cache/facematch"),
        validate_default=True,
        description="Where the networks are kept in the form that onnxruntime reads; made on first use.",
    )
    encoders: Annotated[Path | None, AfterValidator(lambda folder: folder and folder.expanduser())] = Field(
        default=None,
        description="Where encoders are kept that were added, with their weights. Unset: `encoders` in model_cache.",
    )
    match_batch: int = Field(default=256, ge=1, description="Newcomers that the matcher compares at once.")
    findings_limit: int = Field(
        default=100,
        ge=1,
        description="Findings published of one newcomer: the nearest. How many there are stands in IndividualChecked.",
    )
    max_collections: int = Field(
        default=10_000,
        ge=1,
        description="Collections that a matcher takes in each partition of encodings. An embedding of one more becomes "
        "a dead letter, to be sent again once this is raised and the matchers were started again.",
    )
    recall_floor: float = Field(
        default=0.999,
        gt=0,
        lt=1,
        description="The least share of pairs that a sealed segment finds, measured when it is sealed. The parameters "
        "of its index follow from it.",
    )
    delta_limit: int = Field(
        default=50_000,
        ge=100,
        description="Embeddings that the matcher compares exactly; as many are sealed into an index in the background.",
    )
    compact_at: str = Field(
        default="0 2 * * *",
        description="When the compactor compacts, as a cron expression.",
    )
    time_zone: str = Field(default="UTC", description="Of compact_at, as the tz database names it.")
    sink_batch: int = Field(default=1000, ge=1, description="Events that the sink writes in one transaction.")
    log: LogFormat | None = Field(
        default=None, description="Log lines as text or json. Unset: text on a terminal, json elsewhere."
    )
    data_folder: Path = Field(
        default=STACK_FOLDER, description="Where the local stack and the list of submitted photo roots live."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - its folder would be that of the import
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The sources of settings, the strongest first. Raises UnknownSettingError."""
        check_names(os.environ, secrets_folder(), [name.upper() for name in settings_cls.model_fields])
        return init_settings, env_settings, SecretsSettingsSource(settings_cls, secrets_folder()), dotenv_settings

    @field_validator("kafka")
    @classmethod
    def _kafka_addresses(cls, value: str) -> str:
        if not all(re.fullmatch(r"\s*[^\s,]+:[0-9]{1,5}\s*", address) for address in value.split(",")):
            raise ValueError("it is not host:port, or several of them with commas between")
        return value

    @field_validator("postgres", "outbox")
    @classmethod
    def _postgres_address(cls, value: str | None) -> str | None:
        return None if value is None else check_address(value, "postgresql", "postgresql+psycopg2")

    @field_validator("redis")
    @classmethod
    def _redis_address(cls, value: str) -> str:
        return check_address(value, "redis", "rediss")

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if (self.kafka_user is None) != (self.kafka_password is None):
            raise ValueError("FACEMATCH_KAFKA_USER and FACEMATCH_KAFKA_PASSWORD go together: one of them is not set")
        if self.kafka_ca is not None and not self.kafka_tls:
            raise ValueError("FACEMATCH_KAFKA_CA is for TLS: set FACEMATCH_KAFKA_TLS=true")
        if self.redis_ca is not None and not self.redis.startswith("rediss:"):
            raise ValueError("FACEMATCH_REDIS_CA is for TLS: let FACEMATCH_REDIS begin with rediss://")
        return self

    def shown(self, name: str) -> str:
        """A setting's value as it may be shown: without any secret."""
        value = getattr(self, name)
        if isinstance(value, BaseModel):
            return value.model_dump_json(exclude_none=True)
        if isinstance(value, list):
            return json.dumps([str(one) for one in value])
        if isinstance(value, dict) and all(isinstance(one, float) for one in value.values()):
            return json.dumps(value)
        if name in _ADDRESSES and value is not None:
            return without_password(value)
        return "" if value is None else str(value)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, self.shown(name) if name in _ADDRESSES and value is not None else value

    @property
    def encoders_folder(self) -> Path:
        """Where added encoders are: see `encoders`."""
        return self.encoders or self.model_cache / ENCODERS

    def several_faces_for(self, collection: str) -> SeveralFaces:
        """The collection's own rule, or the general one."""
        return self._own(collection).several_faces or self.several_faces

    def routing_for(self, collection: str) -> Routing:
        """The collection's own routing, or the general one."""
        return self._own(collection).routing or self.routing

    def minimum_quality_for(self, collection: str) -> MinimumQuality:
        """The collection's own minimum, as a whole, or the general one."""
        return self._own(collection).minimum_quality or self.minimum_quality

    def _own(self, collection: str) -> CollectionSettings:
        return self.collections.get(collection, _NOTHING_OWN)


_NOTHING_OWN = CollectionSettings()
_ADDRESSES = ("redis", "postgres", "outbox")


class NoSecretsError(UserFault):
    """The folder of secrets that is named is not there."""


class UnknownSettingError(UserFault):
    """A variable of the environment, or a file of secrets, is named like a setting and is none."""


def check_names(environment: Iterable[str], secrets: Path | None, settings: Sequence[str]) -> None:
    """Raise UnknownSettingError for a FACEMATCH_ variable, or a file facematch… of the folder, that is no setting.

    It would be ignored without a word, though somebody meant something by it.
    """
    names = [_PREFIX + name for name in settings]
    for variable in environment:
        if variable.upper() == f"{_PREFIX}THRESHOLD":
            typed = f"""{_PREFIX}THRESHOLDS='{{"face_recognition": 0.45}}'"""
            raise UnknownSettingError(f"{variable} is no setting: {_ONE_FOR_ALL.format(typed)}")
        if variable.upper().startswith(_PREFIX) and variable.upper() not in (*names, SECRETS):
            raise UnknownSettingError(f"{variable} is no setting{_nearest(variable, names)}")
    for file in secrets.iterdir() if secrets is not None else ():
        if file.name.lower().startswith("facematch") and file.name.upper() not in names and file.is_file():
            raise UnknownSettingError(f"the file {file} is no setting{_nearest(file.name, names, str.lower)}")


def _nearest(name: str, names: Sequence[str], case: Callable[[str], str] = str) -> str:
    by_rest = {one.removeprefix(_PREFIX): one for one in names}  # the prefix, which all share, makes all look near
    near = get_close_matches(name.upper().removeprefix(_PREFIX), by_rest, n=1)
    return f": did you mean {case(by_rest[near[0]])}?" if near else "; `facematch settings` lists them all"


def secrets_folder() -> Path | None:
    """That which FACEMATCH_SECRETS names, or the usual one if it is there. Raises NoSecretsError."""
    named = os.environ.get(SECRETS)
    if named is None:
        return SECRETS_FOLDER if SECRETS_FOLDER.is_dir() else None
    if not Path(named).is_dir():
        raise NoSecretsError(f"{SECRETS} names {named}, which is no folder")
    return Path(named)
