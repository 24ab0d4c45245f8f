"""Redis and Postgres by TLS, which the packages' are built without: on Debian's, which this needs (`make test-tls`)."""

import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from sqlalchemy import text
from typer.testing import CliRunner

from deploy.cli import app
from deploy.local.nobody import USER
from deploy.local.ports import is_free
from deploy.local.servers import Server
from runtime.servers.postgres import postgres_engine
from runtime.servers.redis import connect_once
from tests.integration import debian
from tests.integration.secured import (
    SecuredStack,
    SecuredWorld,
    each_role_does_its_work,
    secured_world,
    words_of,
    write_certificate,
)

pytestmark = [pytest.mark.tls, pytest.mark.xdist_group("tls")]
BOTH = pytest.mark.parametrize(
    ("server", "role", "command"), [("Postgres", "operator", "status"), ("Redis", "matcher", "match")]
)


class DebiansStack(SecuredStack):
    """All three servers by TLS, and by nothing else."""

    redis_program = debian.REDIS
    postgres_programs = debian.POSTGRES

    def redis(self, port: int) -> Server:
        """See SecuredStack."""
        return replace(super().redis(port), ready=lambda: not is_free(port))

    def redis_options(self, port: int) -> dict[str, str]:
        """See SecuredStack."""
        chain, key = write_certificate(self.certificates, "redis", self.trusted)
        return {
            "port": "0",
            "tls-port": str(port),
            "tls-cert-file": str(chain),
            "tls-key-file": str(key),
            "tls-ca-cert-file": str(self.ca),
            "tls-auth-clients": "no",
        }

    def postgres(self, port: int) -> Server:
        """See SecuredStack."""
        server = super().postgres(port)
        (self.folder / "postgres" / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")
        key = self.certificates / "postgres.key"
        key.chmod(0o600)
        if os.geteuid() == 0:
            shutil.chown(key, USER)
        return server

    def postgres_options(self) -> dict[str, str]:
        """See SecuredStack."""
        chain, key = write_certificate(self.certificates, "postgres", self.trusted)
        return {"ssl": "on", "ssl_cert_file": str(chain), "ssl_key_file": str(key)}

    def start_servers(self, say: Any) -> None:
        """See Stack."""
        super().start_servers(say)
        self.addresses["FACEMATCH_REDIS"] = self.addresses["FACEMATCH_REDIS"].replace("redis://", "rediss://")

    def as_admin(self) -> dict[str, Any]:
        """See SecuredStack."""
        return {**super().as_admin(), "redis_ca": self.ca, "postgres_ca": self.ca}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredWorld]:
    """A tenant on servers of their own, which all tests of this module share."""
    debian.require_servers()
    with secured_world(tmp_path_factory.mktemp("world"), DebiansStack) as made:
        yield made


def test_every_role_does_its_work_by_tls_alone(world: SecuredWorld, photos: Path, tmp_path: Path) -> None:
    each_role_does_its_work(world, photos, tmp_path)
    with postgres_engine(world.settings).connect() as connection:
        clients = "pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE client_port > 0"
        assert set(connection.scalars(text(f"SELECT ssl FROM {clients}"))) == {True}


@pytest.fixture
def others(tmp_path: Path) -> str:
    """Somebody else's certificate authority."""
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "others.pem"))
    return str(tmp_path / "others.pem")


@pytest.mark.parametrize(
    ("server", "role", "command"), [("Postgres", "operator", "status"), ("Redis", "matcher", "match")]
)
def test_a_server_that_others_signed_for_is_not_talked_to(
    world: SecuredWorld, others: str, server: str, role: str, command: str
) -> None:
    done = world.facematch(role, command, **{f"FACEMATCH_{server.upper()}_CA": others})
    assert done.exit_code == 2, done.output
    assert "is not trusted" in words_of(done)
    assert f"FACEMATCH_{server.upper()}_CA must name who signed it" in words_of(done)


@pytest.mark.parametrize(
    ("server", "role", "command"), [("Postgres", "operator", "status"), ("Redis", "matcher", "match")]
)
def test_a_server_whose_certificate_names_another_is_not_talked_to(
    world: SecuredWorld, server: str, role: str, command: str
) -> None:
    address = str(getattr(world.settings, server.lower())).replace("127.0.0.1", "localhost")
    done = world.facematch(role, command, **{f"FACEMATCH_{server.upper()}": address})
    assert done.exit_code == 2, done.output
    assert "connect by a name that stands in it" in words_of(done)


def test_an_address_does_not_make_postgres_be_talked_to_without_tls_where_a_ca_is_given(world: SecuredWorld) -> None:
    address = f"{world.settings.postgres}?sslmode=disable"
    done = world.facematch("operator", "status", FACEMATCH_POSTGRES=address)
    assert done.exit_code == 0, done.output
    plain = {name: value for name, value in world.env_of_role("operator").items() if name != "FACEMATCH_POSTGRES_CA"}
    refused = CliRunner(env={**plain, "FACEMATCH_POSTGRES": address}).invoke(app, ["status"])
    assert refused.exit_code == 2, refused.output
    assert "it wants TLS: set FACEMATCH_POSTGRES_CA" in words_of(refused)


@contextmanager
def expired_certificates(world: SecuredWorld) -> Iterator[None]:
    """The servers read new certificates while they run."""
    stack = world.stack
    then = datetime.now(UTC) - timedelta(days=2)
    with closing(connect_once(world.settings)) as redis, postgres_engine(world.settings).connect() as postgres:

        def read_anew(server: str, chain: Path, key: Path) -> None:
            if server == "redis":
                redis.config_set("tls-cert-file", str(chain), "tls-key-file", str(key))
            else:
                postgres.execute(text("SELECT pg_reload_conf()"))
                postgres.commit()

        for server in ("redis", "postgres"):
            read_anew(server, *write_certificate(stack.certificates, server, stack.trusted, not_after=then))
        yield
        for server in ("redis", "postgres"):
            read_anew(server, *write_certificate(stack.certificates, server, stack.trusted))


@pytest.mark.parametrize(
    ("server", "role", "command"), [("Postgres", "operator", "status"), ("Redis", "matcher", "match")]
)
def test_a_certificate_that_expired_ends_with_what_to_do(
    world: SecuredWorld, server: str, role: str, command: str
) -> None:
    with expired_certificates(world):
        done = world.facematch(role, command)
    assert done.exit_code == 2, done.output
    assert f"{server}" in words_of(done)
    assert "certificate has expired; renew it, and have the server read the new one" in words_of(done)
