"""Which addresses on the network a photo may be read from. Pure."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network

_GLOBAL_UNICAST = IPv6Network("2000::/3")  # RFC 4291: all that is routed on the internet
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052


def may_be_asked(address: str, private_networks: Iterable[Network]) -> bool:
    """Whether an address is a public one, or lies in a network that the operator named.

    Not public: private, loopback, link-local (the metadata of a cloud's machines), shared, multicast, reserved. An
    IPv6 address that stands for one of IPv4 (mapped, 6to4, NAT64) counts as that one.
    """
    found = _stands_for(ip_address(address))
    if any(found in network for network in private_networks):
        return True
    if isinstance(found, IPv6Address) and found not in _GLOBAL_UNICAST:
        return False
    return found.is_global and not found.is_multicast


def _stands_for(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
