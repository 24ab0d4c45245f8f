"""Reads photos: inside the event, or at a URI below an allowed root, with fsspec.

Of `http` and `https`, each redirect and each address that is connected to is checked too (`consumers.photos.web`). The
operator configures what `s3`, `gs` and the like connect to, no event does; `ftp` and `sftp` connect to the host of an
allowed root, whatever its address.
"""

import base64
import errno
import os
import stat
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import aiohttp
import fsspec
import structlog

from consumers.photos.rejected import RejectedError
from consumers.photos.web import INVALID_URI, REQUEST_OPTIONS, broken_rule, checked_client, forbidden
from runtime.photo_roots import is_below, submitted_roots
from runtime.servers.patience import growing_pauses
from schemas.events.encodings import RejectionReason
from schemas.events.registrations import Photo
from schemas.settings import Settings

log = structlog.stdlib.get_logger(__name__)
_FIRST_PAUSE_S = 0.5


def longest_fetch_s(settings: Settings) -> float:
    """Seconds until a photo is given up whose store never answers: all attempts, and the pauses between them."""
    attempts = settings.photo_attempts
    return attempts * settings.photo_timeout_s + sum(islice(growing_pauses(_FIRST_PAUSE_S), attempts - 1))


class PhotoStore:
    """Reads photos. Stores that do not answer are asked again, with growing pauses."""

    def __init__(self, settings: Settings, pause: Callable[[float], None] = time.sleep) -> None:
        self._settings = settings
        self._pause = pause
        self._client = checked_client(settings, self._is_allowed)

    def read(self, photo: Photo) -> bytes:
        """The photo file. Raises RejectedError: too large, not found, unavailable or forbidden."""
        if photo.uri is None:
            return self._limited(_inline(photo.inline or ""), "inline")
        self._check_allowed(photo.uri)
        pauses = growing_pauses(_FIRST_PAUSE_S)
        for attempt in range(self._settings.photo_attempts):
            try:
                return self._limited(self._fetch(photo.uri), photo.uri)
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                raise RejectedError(
                    RejectionReason.PHOTO_NOT_FOUND,
                    "there is no photo at its URI: send the event again once there is",
                ) from None
            except (RejectedError, MemoryError):
                raise
            except Exception as error:  # noqa: BLE001 - the library of a store raises what it likes: ftplib.Error, say
                if rule := broken_rule(error):
                    raise forbidden(rule) from None
                trouble = type(error).__name__
                if attempt + 1 < self._settings.photo_attempts:
                    pause = next(pauses)
                    log.warning("photo store does not answer", error=trouble, again_in_s=pause)
                    self._pause(pause)
        raise RejectedError(
            RejectionReason.PHOTO_UNAVAILABLE,
            f"the photo store did not answer {self._settings.photo_attempts} times ({trouble}): "
            "replay the event once it does",
        )

    def _check_allowed(self, uri: str) -> None:
        try:
            scheme = urlsplit(uri).scheme
        except ValueError:
            raise forbidden(INVALID_URI) from None
        # Behind "::" fsspec would open another URI.
        chained = "::" in uri and scheme not in {"file", "http", "https"}
        if chained or not self._is_allowed(uri):
            raise forbidden(
                "the photo's URI is outside the allowed roots, and was not read: "
                "submit it from this machine, or name its root in FACEMATCH_PHOTO_ROOTS"
            )

    def _is_allowed(self, uri: str) -> bool:
        roots = self._settings.photo_roots
        if roots is None:
            roots = submitted_roots(self._settings.data_folder)
        return any(is_below(uri, root) for root in roots)

    def _fetch(self, uri: str) -> bytes:
        limit = self._settings.max_photo_bytes + 1
        parts = urlsplit(uri)
        if parts.scheme == "file":
            return self._read_file(Path(unquote(parts.path)), limit)
        how: dict[str, Any] = {}
        try:
            if parts.scheme in {"http", "https"}:
                filesystem, path = fsspec.filesystem("http", get_client=self._client), uri
                # One request, read as a stream, so that what is beyond the limit is never fetched. A size, whatever it
                # is, keeps fsspec from asking for it first and calling every failure "not found".
                how = {"block_size": 0, "size": limit, **REQUEST_OPTIONS}
            else:
                filesystem, path = fsspec.core.url_to_fs(uri)
            with filesystem.open(path, "rb", **how) as file:
                return _read_up_to(file, limit)
        except aiohttp.InvalidURL:  # a ValueError too, with the URI in its text
            raise
        except (ImportError, ValueError) as error:
            raise forbidden(f"photos at {parts.scheme}:// cannot be read here: {error}") from None

    def _read_file(self, path: Path, limit: int) -> bytes:
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise FileNotFoundError(errno.ENOENT, "no regular file")
            # A link may have been put in its way since the check: what is open now counts.
            self._check_allowed(Path(f"/proc/self/fd/{file.fileno()}").resolve().as_uri())
            return file.read(limit)

    def _limited(self, data: bytes, where: str) -> bytes:
        if len(data) > self._settings.max_photo_bytes:
            raise RejectedError(
                RejectionReason.PHOTO_TOO_LARGE,
                f"the photo file ({'in the event' if where == 'inline' else 'at its URI'}) is larger than "
                f"{self._settings.max_photo_bytes / 1e6:g} MB: send a smaller copy",
            )
        return data


def _without_waiting(path: str, flags: int) -> int:
    """Opens a file; a named pipe too, where others wait until somebody writes to it."""
    return os.open(path, flags | os.O_NONBLOCK)


def _read_up_to(file: IO[bytes], limit: int) -> bytes:
    """A stream hands over what has arrived, which may be less than was asked for."""
    data = bytearray()
    while len(data) < limit and (more := file.read(limit - len(data))):
        data += more
    return bytes(data)


def _inline(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        raise RejectedError(
            RejectionReason.PHOTO_UNREADABLE, "the photo inside the event is not valid base64"
        ) from None
