"""Addresses of servers, which may hold a password: whether one is well formed, and what of it may be shown."""

import re
from urllib.parse import urlsplit

_LOGIN = re.compile(r"(?<=://)([^:/@]*):.*@", re.DOTALL)  # to the last @, whatever a password has in it
_PARAMETER = re.compile(r"([?&][^=&]*pass[^=&]*=)[^&]*", re.IGNORECASE)


def without_password(address: str) -> str:
    """The address with stars in the place of every password: that before the host, and those among the parameters."""
    return _PARAMETER.sub(r"\1***", _LOGIN.sub(r"\1:***@", address))


def check_address(address: str, *schemes: str) -> str:
    """The address, if it is one. Raises ValueError, whose text has nothing of the address in it."""
    parts = urlsplit(address)
    if parts.scheme not in schemes:
        raise ValueError(f"it does not begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    login, _, place = parts.netloc.rpartition("@")
    try:
        is_well_formed = "@" not in login + parts.path and urlsplit(f"//{place}").port != 0
    except ValueError:
        is_well_formed = False
    if not is_well_formed:
        raise ValueError(
            "it is no address. In a password, %40 stands for @, %2F for /, %3A for :, %23 for #, %3F for ? and %25 for "
            "%; or leave the password out and set it by itself"
        )
    return address
