"""A worker's HTTP endpoint: /metrics for Prometheus, /healthz and /readyz for its supervisor."""

import socket
import threading
from collections.abc import Iterable
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import structlog
from prometheus_client import disable_created_metrics, make_wsgi_app

from runtime.telemetry.health import HEALTH, Health
from runtime.telemetry.metrics import LOOP_SILENT_S, READY
from schemas.faults import UserFault

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = structlog.stdlib.get_logger(__name__)

MAX_CONNECTIONS = 32
SILENT_AT_MOST_S = 5.0  # between two packets of a request


class AddressError(UserFault):
    """Nothing can listen at that address. The text says why."""


class _Server(ThreadingMixIn, WSGIServer):
    """One thread a connection. The newest is always served: beyond MAX_CONNECTIONS the oldest is closed for it."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._open: dict[socket.socket, None] = {}  # in the order in which they came
        self._lock = threading.Lock()
        super().__init__(*arguments, **named)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open[request] = None
            while len(self._open) > MAX_CONNECTIONS:
                oldest = next(iter(self._open))
                del self._open[oldest]
                with suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)  # its thread reads the end, and closes it
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = SILENT_AT_MOST_S

    def handle(self) -> None:
        with suppress(OSError):  # a client that stalls, or leaves, is dropped
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: there is a probe every few seconds."""


def serve(address: str, worker: str, health: Health = HEALTH) -> str:
    """Listen in a thread of its own until the process ends; returns the URL. Raises AddressError."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    disable_created_metrics()  # type: ignore[no-untyped-call] # they double what is scraped, and hold nothing new
    READY.labels(worker).set_function(lambda: float(health.is_ready))
    LOOP_SILENT_S.labels(worker).set_function(lambda: health.silent_s)
    kind = _Server6 if ":" in host else _Server
    try:
        server = make_server(host, int(port), application(health), kind, _Handler)
    except (OSError, OverflowError) as error:
        raise AddressError(f"FACEMATCH_HTTP: nothing can listen at {address}: {error}") from None
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    url = f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}"
    log.info("/metrics, /healthz and /readyz are served", url=url)
    return url


def application(health: Health) -> "WSGIApplication":
    """The WSGI application."""
    metrics: WSGIApplication = make_wsgi_app()

    def answer(environment: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
        path = environment.get("PATH_INFO")
        if path == "/metrics":
            return metrics(environment, start)
        status, text = "404 Not Found", "/metrics, /healthz and /readyz are here"
        if path == "/healthz":
            moved = f"its loop moved {health.silent_s:.0f} s ago"
            status, text = ("200 OK", f"alive: {moved}") if health.is_alive else (_UNAVAILABLE, f"hangs: {moved}")
        elif path == "/readyz":
            status, text = (
                ("200 OK", "ready") if health.is_ready else (_UNAVAILABLE, f"not ready: {health.why_not_ready}")
            )
        start(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{text}\n".encode()]

    return answer


_UNAVAILABLE = "503 Service Unavailable"
