"""Who was erased, known by keyed hashes alone: what keeps an erased person from coming back. Pure.

A tombstone keeps a person out for as long as Kafka keeps it; this does for good. It is of no use without the key, which
is as secret as the ids are, and must not be lost: with another one nobody would be recognised.
"""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple

from pydantic import SecretStr

from schemas.envelope import Message
from schemas.events.base import Event, individual_key
from schemas.events.registrations import IndividualErased
from schemas.faults import UserFault


class ErasureKeyError(UserFault):
    """There is no key, or the registry was made with another one."""


class ErasureKey:
    """The key of the registry. Raises ErasureKeyError where none is set, or one that can be guessed."""

    def __init__(self, secret: SecretStr | None) -> None:
        if secret is None or len(secret.get_secret_value()) < 32:
            raise ErasureKeyError(
                "FACEMATCH_ERASURE_KEY must be a secret of at least 32 characters, the same for every worker, kept as "
                "long as the data: `openssl rand -hex 32` makes one"
            )
        self._secret = secret.get_secret_value().encode()
        self.id = hashlib.sha256(b"facematch erasure key/" + self._secret).hexdigest()[:8]

    def digest(self, collection: str, individual_id: str) -> str:
        """HMAC-SHA-256 (RFC 2104) of collection/individual_id, in hexadecimal."""
        return hmac.digest(self._secret, individual_key(collection, individual_id).encode(), "sha256").hex()

    def erasure_of(self, collection: str, individual_id: str, revision: int) -> IndividualErased:
        """What is kept of an erased individual."""
        digest = self.digest(collection, individual_id)
        return IndividualErased(collection=collection, digest=digest, key_id=self.id, revision=revision)


class Erasure(NamedTuple):
    """Up to which revision somebody is erased, and when Kafka had that: see `as_erasure`."""

    revision: int
    time: datetime

    def covers(self, message: Message[Event], revision: int | None) -> bool:
        """Whether a revision of an individual does not count any more.

        A decision, which has no revision (None), does not if it was made, or Kafka had it, before the erasure.
        """
        return message.time <= self.time if revision is None else revision <= self.revision


class Erased:
    """The registry of the erased. No event about a revision up to that of the erasure counts."""

    def __init__(self, key: ErasureKey | None = None, erasures: Mapping[str, Erasure] = MappingProxyType({})) -> None:
        """Of those `erasures`, by their digests, to begin with."""
        self._key = key
        self._erasures = dict(erasures)

    def add(self, message: Message[IndividualErased]) -> None:
        """Take an erasure in. Raises ErasureKeyError where it was made with another key."""
        event = message.event
        if self._key is None or event.key_id != self._key.id:
            raise ErasureKeyError(
                f"the registry of the erased was made with another key ({event.key_id}) than FACEMATCH_ERASURE_KEY: "
                "with this one erased people would come back"
            )
        erasure = Erasure(event.revision, message.time)
        self._erasures[event.digest] = max(erasure, self._erasures.get(event.digest, erasure))

    def find(self, collection: str, individual_id: str) -> Erasure | None:
        """The erasure of an individual, None of one who never was."""
        if not self._erasures or self._key is None:
            return None
        return self._erasures.get(self._key.digest(collection, individual_id))

    def covers(self, collection: str, individual_id: str, revision: int) -> bool:
        """Whether that revision of an individual is erased."""
        erasure = self.find(collection, individual_id)
        return erasure is not None and revision <= erasure.revision

    def forbids(self, message: Message[Event]) -> bool:
        """Whether a message is about an erased revision of an individual, or about a pair with one."""
        for individual_id, revision in message.event.subjects() if self._erasures else ():
            erasure = self.find(message.event.collection, individual_id)
            if erasure is not None and erasure.covers(message, revision):
                return True
        return False


NOBODY = Erased()
