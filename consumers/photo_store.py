"""Where photos are read: inside the event, or at a URI below an allowed root, with fsspec."""

import base64
import binascii
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import aiohttp
import fsspec

from consumers.photos import RejectedError
from schemas.events import Photo, RejectionReason
from schemas.photo_roots import is_below, submitted_roots
from schemas.settings import Settings

log = logging.getLogger(__name__)
_FIRST_PAUSE_S = 0.5


class PhotoStore:
    """Reads photos. Stores that do not answer are asked again, with growing pauses."""

    def __init__(self, settings: Settings, pause: Callable[[float], None] = time.sleep) -> None:
        self._settings = settings
        self._pause = pause

    def read(self, photo: Photo) -> bytes:
        """The photo file. Raises RejectedError: too large, not found, unavailable or forbidden."""
        if photo.inline is not None:
            return self._limited(_inline(photo.inline), "inline")
        assert photo.uri is not None
        self._check_allowed(photo.uri)
        for attempt in range(self._settings.photo_attempts):
            try:
                return self._limited(self._fetch(photo.uri), photo.uri)
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                raise RejectedError(
                    RejectionReason.PHOTO_NOT_FOUND,
                    "there is no photo at its URI: send the event again once there is",
                ) from None
            except (OSError, TimeoutError, aiohttp.ClientError) as error:
                trouble = type(error).__name__
                pause = _FIRST_PAUSE_S * 2**attempt
                if attempt + 1 < self._settings.photo_attempts:
                    log.warning("photo store does not answer (%s), asking again in %.1f s", trouble, pause)
                    self._pause(pause)
        raise RejectedError(
            RejectionReason.PHOTO_UNAVAILABLE,
            f"the photo store did not answer {self._settings.photo_attempts} times ({trouble}): "
            "replay the event once it does",
        )

    def _check_allowed(self, uri: str) -> None:
        roots = self._settings.photo_roots
        if roots is None:
            roots = submitted_roots(self._settings.data_folder)
        chained = "::" in uri and not uri.startswith("file:")  # fsspec would open what stands behind it as well
        if chained or not any(is_below(uri, root) for root in roots):
            raise RejectedError(
                RejectionReason.PHOTO_FORBIDDEN,
                "the photo's URI is outside the allowed roots, and was not read: "
                "submit it from this machine, or name its root in FACEMATCH_PHOTO_ROOTS",
            )

    def _fetch(self, uri: str) -> bytes:
        limit = self._settings.max_photo_bytes + 1
        if uri.startswith("file:"):
            return _read_file(Path(unquote(urlsplit(uri).path)), limit)
        connect: dict[str, Any] = {}
        how: dict[str, Any] = {}
        if uri.startswith(("http://", "https://")):
            connect = {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=self._settings.photo_timeout_s)}}
            # One request, read as a stream, so that what is beyond the limit is never fetched. A size, whatever it
            # is, keeps fsspec from asking for it first and calling every failure "not found".
            how = {"block_size": 0, "size": limit}
        try:
            filesystem, path = fsspec.core.url_to_fs(uri, **connect)
            with filesystem.open(path, "rb", **how) as file:
                return _read_up_to(file, limit)
        except (ImportError, ValueError) as error:
            scheme = urlsplit(uri).scheme
            raise RejectedError(
                RejectionReason.PHOTO_FORBIDDEN, f"photos at {scheme}:// cannot be read here: {error}"
            ) from None

    def _limited(self, data: bytes, where: str) -> bytes:
        if len(data) > self._settings.max_photo_bytes:
            raise RejectedError(
                RejectionReason.PHOTO_TOO_LARGE,
                f"the photo file ({'in the event' if where == 'inline' else 'at its URI'}) is larger than "
                f"{self._settings.max_photo_bytes / 1e6:g} MB: send a smaller copy",
            )
        return data


def _read_file(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        return file.read(limit)


def _read_up_to(file: IO[bytes], limit: int) -> bytes:
    """A stream hands over what has arrived, which may be less than was asked for."""
    data = bytearray()
    while len(data) < limit and (more := file.read(limit - len(data))):
        data += more
    return bytes(data)


def _inline(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise RejectedError(
            RejectionReason.PHOTO_UNREADABLE, "the photo inside the event is not valid base64"
        ) from None
