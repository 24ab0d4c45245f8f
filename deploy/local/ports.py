"""Free ports on 127.0.0.1 for servers."""

import random
import socket

from deploy.local.faults import LocalStackError

# Below the range that operating systems hand out to outgoing connections, so that a server that is restarted
# finds its port again.
_CANDIDATES = range(20_000, 32_000)


def is_free(port: int) -> bool:
    """Whether a server could listen on that port of 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """That many different free ports. Raises LocalStackError."""
    found: list[int] = []
    for port in random.sample(_CANDIDATES, len(_CANDIDATES)):
        if is_free(port):
            found.append(port)
            if len(found) == count:
                return found
    raise LocalStackError(f"no {count} free ports between {_CANDIDATES.start} and {_CANDIDATES.stop} on 127.0.0.1")
