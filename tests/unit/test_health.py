"""/healthz says 503 once the loop hangs, and not while it waits for a server; /readyz says what is waited for."""

import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from runtime.telemetry import serving
from runtime.telemetry.health import HUNG_AFTER_S, Health
from runtime.telemetry.serving import AddressError, application, serve
from schemas.settings import Settings
from tests.conftest import Clock


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(clock)


def ask(health: Health, path: str) -> tuple[int, str]:
    status: list[str] = []

    def start(line: str, _headers: list[tuple[str, str]]) -> None:
        status.append(line)

    environment: dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": "GET", "QUERY_STRING": ""}
    body = b"".join(application(health)(environment, start))  # type: ignore[arg-type] # the least that WSGI needs
    return int(status[0].partition(" ")[0]), body.decode()


def in_another_thread(what: Callable[[], None]) -> None:
    thread = threading.Thread(target=what)
    thread.start()
    thread.join()


def test_a_loop_that_hangs_is_not_alive_and_one_that_moves_again_is(health: Health, clock: Clock) -> None:
    health.beat()
    clock.now += HUNG_AFTER_S - 1
    assert ask(health, "/healthz") == (200, "alive: its loop moved 299 s ago\n")
    clock.now += 1
    assert ask(health, "/healthz") == (503, "hangs: its loop moved 300 s ago\n")
    health.beat()
    assert ask(health, "/healthz")[0] == 200


def test_a_loop_that_waits_for_a_server_is_alive(health: Health, clock: Clock) -> None:
    health.beat()
    for _ in range(10):
        clock.now += HUNG_AFTER_S / 2
        health.still_waiting()
    assert ask(health, "/healthz")[0] == 200


def test_what_another_thread_waits_for_does_not_hide_that_the_loop_hangs(health: Health, clock: Clock) -> None:
    health.beat()
    clock.now += HUNG_AFTER_S
    in_another_thread(health.still_waiting)
    assert ask(health, "/healthz")[0] == 503


def test_it_is_ready_once_there_is_nothing_to_wait_for(health: Health) -> None:
    assert ask(health, "/readyz") == (503, "not ready: it is starting\n")
    health.not_ready("partition 3 is being restored")
    assert ask(health, "/readyz") == (503, "not ready: partition 3 is being restored\n")
    health.ready()
    assert ask(health, "/readyz") == (200, "ready\n")


def test_metrics_can_be_read_and_other_paths_say_what_there_is(health: Health) -> None:
    status, text = ask(health, "/metrics")
    assert status == 200
    assert "process_cpu_seconds" in {family.name for family in text_string_to_metric_families(text)}
    assert ask(health, "/") == (404, "/metrics, /healthz and /readyz are here\n")


def test_an_address_that_cannot_be_had_is_an_error_that_says_why() -> None:
    url = serve("127.0.0.1:0", "test")
    with pytest.raises(AddressError, match="in use"):
        serve(url.removeprefix("http://"), "test")
    with pytest.raises(AddressError, match="no-such-host"):
        serve("no-such-host.invalid:0", "test")
    with pytest.raises(AddressError, match="70000"):
        serve("127.0.0.1:70000", "test")


@pytest.mark.parametrize("address", ["9090", "localhost", ":9090", "a b:1", "http://localhost:9090", "::1:9090"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValidationError, match="http"):
        Settings(_env_file=None, http=address)


@pytest.mark.parametrize("address", ["127.0.0.1:0", "0.0.0.0:9090", "[::1]:9090", "worker-1.internal:9090"])
def test_what_is_an_address_is_taken(address: str) -> None:
    assert Settings(_env_file=None, http=address).http == address


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(serving._Handler, "timeout", 0.2)
    return serve("127.0.0.1:0", "test", Health())


def half_request(url: str) -> socket.socket:
    host, _, port = url.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
    return connection


def test_half_requests_do_not_keep_a_probe_from_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving._Handler, "timeout", 600)
    url, before = serve("127.0.0.1:0", "test", Health()), threading.active_count()
    with ExitStack() as open_ones:
        halves = [open_ones.enter_context(half_request(url)) for _ in range(300)]
        with urlopen(f"{url}/healthz", timeout=10) as response:
            assert response.status == 200
        assert halves[0].recv(1) == b"", "the oldest is closed"
        assert threading.active_count() <= before + serving.MAX_CONNECTIONS + 2


def test_a_client_that_stalls_is_dropped_without_a_word(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    with half_request(url) as stalled:
        assert stalled.recv(1) == b""
    assert capfd.readouterr().err == ""
