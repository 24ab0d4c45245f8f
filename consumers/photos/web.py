"""Client for photos on the web: each request, and each address that is connected to, is checked first.

A redirect is a request like the first one, and its URI must lie below an allowed root as well. An address is checked
when the socket to it is made: after its name was resolved, so that a name which stands for another address a moment
later gains nothing. Proxies that the environment names are not used: what they connect to could not be checked.
"""

import socket
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from consumers.photos.addresses import may_be_asked
from consumers.photos.rejected import RejectedError
from schemas.events.encodings import RejectionReason
from schemas.settings import Settings

_MOST_REDIRECTS = 5
REQUEST_OPTIONS = {"max_redirects": _MOST_REDIRECTS + 1}  # the number at which aiohttp gives up

_ADDRESS = (
    "the photo store's address is not a public one, and was not connected to: "
    "if the store is yours, name its network in FACEMATCH_PHOTO_PRIVATE_NETWORKS"
)
_REDIRECT = (
    "the photo store redirects to a URI outside the allowed roots, which was not read: "
    "if it is to be trusted, name its root in FACEMATCH_PHOTO_ROOTS too"
)
_REDIRECTS = f"the photo store redirects more than {_MOST_REDIRECTS} times: send the URI at which the photo is"
INVALID_URI = "the photo's URI, or one that its store redirects to, is no valid URI: send a valid one"


class ForbiddenAddressError(PermissionError):
    """A socket was refused: its address is not a public one."""


def checked_client(
    settings: Settings, is_allowed: Callable[[str], bool]
) -> Callable[..., Awaitable[aiohttp.ClientSession]]:
    """Makes the client that fsspec asks with. `is_allowed` says whether a URI lies below an allowed root."""

    async def ask(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        if not is_allowed(str(request.url)):
            raise forbidden(_REDIRECT)
        return await handler(request)

    def make_socket(address: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, (host, *_) = address
        if not may_be_asked(host, settings.photo_private_networks):
            raise ForbiddenAddressError
        return socket.socket(family, kind, protocol)

    async def client(**_: Any) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(socket_factory=make_socket),
            middlewares=(ask,),
            timeout=aiohttp.ClientTimeout(total=settings.photo_timeout_s),
            trust_env=False,
        )

    return client


def broken_rule(error: Exception) -> str | None:
    """The rule that a failed request broke, as a text for people; None if it broke none."""
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, ForbiddenAddressError):
        return _ADDRESS
    if isinstance(error, aiohttp.TooManyRedirects):
        return _REDIRECTS
    if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
        return INVALID_URI
    return None


def forbidden(rule: str) -> RejectedError:
    return RejectedError(RejectionReason.PHOTO_FORBIDDEN, rule)
