"""A certificate that is not to be trusted is told from a server that is away, and nothing is sent."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg2
import pytest
import redis.exceptions
import trustme
from sqlalchemy import make_url
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

from deploy.cli import app
from runtime.servers.refusals import AccessRefusedError, ask_redis, refused_by_postgres
from schemas.settings import Settings

Present = Callable[[trustme.LeafCert], int]


@pytest.fixture
def present() -> Iterator[Present]:
    """Speaks TLS with a certificate, and says no more; returns its port."""
    stack: list[socket.socket] = []

    def start(certificate: trustme.LeafCert) -> int:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(context)
        listener = socket.create_server(("127.0.0.1", 0))
        stack.append(listener)

        def serve() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                except OSError:
                    return
                try:
                    context.wrap_socket(plain, server_side=True).close()
                except OSError:
                    plain.close()

        threading.Thread(target=serve, daemon=True).start()
        return int(listener.getsockname()[1])

    yield start
    for listener in stack:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def days_ago(days: int) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


@pytest.mark.parametrize(
    ("validity", "problem"),
    [
        ({"not_before": days_ago(9), "not_after": days_ago(2)}, "certificate has expired; renew it"),
        ({"not_before": days_ago(-2), "not_after": days_ago(-9)}, "certificate is not yet valid; compare the clocks"),
    ],
)
def test_a_certificate_that_expired_or_is_not_valid_yet(
    present: Present, tmp_path: Path, validity: dict[str, datetime], problem: str
) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    (tmp_path / "a.jpg").touch()
    port = present(ca.issue_cert("127.0.0.1", **validity))  # type: ignore[arg-type] # mypy sees one type for all
    by_tls = {"KAFKA": f"127.0.0.1:{port}", "KAFKA_TLS": "true", "KAFKA_CA": str(tmp_path / "ca.pem")}
    env = {f"FACEMATCH_{name}": value for name, value in by_tls.items()}
    done = CliRunner(env=env).invoke(app, ["submit", str(tmp_path / "a.jpg")])
    said = " ".join(done.output.replace("│", " ").split())
    assert done.exit_code == 2
    assert f"Kafka at 127.0.0.1:{port} is not trusted: {problem}" in said
    with pytest.raises(AccessRefusedError, match=problem):
        ask_redis(Settings(redis=f"rediss://127.0.0.1:{port}", redis_ca=tmp_path / "ca.pem"))


def test_a_server_that_hangs_up_or_speaks_no_tls(tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings = Settings(redis=f"rediss://127.0.0.1:{listener.getsockname()[1]}", redis_ca=tmp_path / "ca.pem")

        def answer(what: bytes) -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(what)

        with ThreadPoolExecutor() as threads:
            threads.submit(answer, b"-ERR what?\r\n")
            with pytest.raises(AccessRefusedError, match="does not speak TLS as we do"):
                ask_redis(settings)
            threads.submit(answer, b"")
            with pytest.raises(redis.exceptions.ConnectionError):  # it may be starting
                ask_redis(settings)


@pytest.mark.parametrize(
    ("said", "refused"),
    [
        ('connection to server at "h", port 1 failed: FATAL:  password authentication failed for user "u"', True),
        ('connection to server at "h", port 1 failed: fe_sendauth: no password supplied', True),
        ('FATAL:  no pg_hba.conf entry for host "h", user "u", database "d", no encryption', True),
        ('FATAL:  role "u" does not exist', True),
        ('FATAL:  permission denied for database "d"', True),
        ("server does not support SSL, but SSL was required", True),
        ('FATAL:  database "d" does not exist', False),
        ("FATAL:  the database system is starting up", False),
        ('connection to server at "h", port 1 failed: Connection refused', False),
        ('could not translate host name "h" to address', False),
        ("server closed the connection unexpectedly", False),
    ],
)
def test_postgres_that_refuses_is_told_from_one_that_is_away(said: str, refused: bool) -> None:
    error = OperationalError(None, None, psycopg2.OperationalError(said))
    assert (refused_by_postgres(make_url("postgresql://u:p@h/d"), error) is not None) == refused
