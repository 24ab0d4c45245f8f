"""Settings come from the environment, from files of secrets, from the local stack; none of their secrets is shown."""

import io
from pathlib import Path

import pytest
from pydantic import SecretStr
from redis.connection import Connection, SSLConnection
from rich.console import Console
from typer.testing import CliRunner, Result

from deploy.cli import app
from deploy.status.settings import print_settings
from producers.outbox.table import outbox_engine
from runtime.servers.kafka import client_config
from runtime.servers.postgres import postgres_engine, postgres_url
from runtime.servers.redis import connect_once
from schemas import settings as module
from schemas.addresses import without_password
from schemas.settings import Settings

SECRET = "s3cret"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of secrets, in a folder where no stack has run."""
    monkeypatch.chdir(tmp_path)
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    monkeypatch.setenv("FACEMATCH_SECRETS", str(secrets))
    return secrets


def facematch(*arguments: str, **env: str) -> Result:
    return CliRunner(env=env).invoke(app, arguments)


def said(done: Result) -> str:
    """Without the frame around it."""
    return " ".join(done.output.translate(dict.fromkeys(map(ord, "│╭╮╰╯─┃"), " ")).split())


def test_a_secret_may_come_from_a_file(folder: Path) -> None:
    (folder / "facematch_redis_password").write_text(f"{SECRET}\n")
    found = Settings()
    assert found.redis_password == SecretStr(SECRET)
    assert connect_once(found).connection_pool.connection_kwargs["password"] == SECRET


def test_the_environment_goes_before_a_file_and_a_file_before_the_local_stack(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".facematch").mkdir()
    (tmp_path / ".facematch" / "stack.env").write_text("FACEMATCH_KAFKA=stack:1\nFACEMATCH_NAMESPACE=stack\n")
    assert (Settings().kafka, Settings().namespace) == ("stack:1", "stack")
    (folder / "facematch_kafka").write_text("file:1")
    (folder / "facematch_namespace").write_text("file")
    monkeypatch.setenv("FACEMATCH_KAFKA", "environment:1")
    assert (Settings().kafka, Settings().namespace) == ("environment:1", "file")


def test_the_usual_folder_is_read_where_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FACEMATCH_SECRETS")
    monkeypatch.setattr(module, "SECRETS_FOLDER", tmp_path / "usual")
    assert Settings().namespace == "facematch"
    (tmp_path / "usual").mkdir()
    (tmp_path / "usual" / "facematch_namespace").write_text("usual")
    assert Settings().namespace == "usual"


def test_a_folder_of_secrets_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    done = facematch("settings", FACEMATCH_SECRETS=str(tmp_path / "none"))
    assert done.exit_code == 2
    assert "which is no folder" in said(done)


@pytest.mark.parametrize(
    "address",
    [
        f"redis://user:{SECRET}@redis.example.org:6379/0",
        f"redis://:{SECRET}@redis.example.org",
        f"postgresql://user:p@{SECRET}@postgres.example.org/db",
        f"postgresql://user:p/{SECRET}@postgres.example.org/db?sslmode=require",
        f"redis://redis.example.org?username=user&password={SECRET}",
        f"postgresql://postgres.example.org/db?sslpassword={SECRET}&sslmode=require",
    ],
)
def test_no_password_of_an_address_is_shown(address: str) -> None:
    shown = without_password(address)
    assert SECRET not in shown
    assert "***" in shown
    assert "example.org" in shown


def test_settings_show_no_secret_wherever_they_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEMATCH_REDIS", f"redis://user:{SECRET}@redis.example.org")
    monkeypatch.setenv("FACEMATCH_POSTGRES", f"postgresql://user:{SECRET}@postgres.example.org/db")
    monkeypatch.setenv("FACEMATCH_OUTBOX", f"postgresql://user@outbox.example.org/db?password={SECRET}")
    monkeypatch.setenv("FACEMATCH_KAFKA_USER", "user")
    for name in ("KAFKA_PASSWORD", "REDIS_PASSWORD", "POSTGRES_PASSWORD", "ERASURE_KEY"):
        monkeypatch.setenv(f"FACEMATCH_{name}", SECRET * 8)
    found = Settings()
    console = Console(file=io.StringIO(), width=200)
    print_settings(console, found)
    printed = console.file.getvalue()  # type: ignore[attr-defined] # a StringIO has it
    for text in (printed, repr(found), str(found), f"{found!r}", facematch("settings").output):
        assert SECRET not in text
    for host in ("redis.example.org", "postgres.example.org", "outbox.example.org"):
        assert host in printed
        assert host in repr(found)


@pytest.mark.parametrize(
    ("setting", "value", "problem"),
    [
        ("KAFKA", "kafka:9093,other", "it is not host:port"),
        ("POSTGRES", f"mysql://user:{SECRET}@host/db", "does not begin with postgresql://"),
        ("POSTGRES", f"postgresql://user:p@{SECRET}@host/db", "it is no address"),
        ("POSTGRES", f"postgresql://user:p/{SECRET}@host/db", "it is no address"),
        ("OUTBOX", f"postgresql://user:{SECRET}@host:port/db", "it is no address"),
        ("REDIS", f"http://:{SECRET}@host", "does not begin with redis:// or rediss://"),
        ("REDIS", f"redis://user:p/{SECRET}@host", "it is no address"),
        ("KAFKA_PASSWORD", SECRET, "FACEMATCH_KAFKA_USER and FACEMATCH_KAFKA_PASSWORD go together"),
        ("KAFKA_CA", __file__, "set FACEMATCH_KAFKA_TLS=true"),
        ("REDIS_CA", __file__, "let FACEMATCH_REDIS begin with rediss://"),
        ("POSTGRES_CA", "/none.pem", "Path does not point to a file"),
    ],
)
def test_a_setting_that_cannot_be_right_is_an_error_without_the_secret(setting: str, value: str, problem: str) -> None:
    done = facematch("setup", **{f"FACEMATCH_{setting}": value})
    assert done.exit_code == 2
    assert problem in said(done)
    assert f"FACEMATCH_{setting}" in said(done)
    assert SECRET not in done.output


def test_postgres_needs_no_driver_in_its_address_and_takes_user_and_password_beside_it() -> None:
    found = Settings(
        postgres=f"postgresql://somebody:{SECRET}@host/db",
        postgres_user="facematch-sink",
        postgres_password=SecretStr("p@ss/word"),
    )
    url = postgres_url(found)
    assert (url.username, url.password, url.host, url.database) == ("facematch-sink", "p@ss/word", "host", "db")
    engine = postgres_engine(found)
    assert engine.url.drivername == "postgresql+psycopg2"
    assert SECRET not in repr(engine)
    assert "p@ss" not in repr(engine)
    assert postgres_url(Settings(postgres="postgresql://me:own@host/db")).password == "own"
    outbox = outbox_engine(found.model_copy(update={"outbox": "postgresql://relay:its-own@other/registration"}))
    assert (outbox.url.username, outbox.url.password, outbox.url.host) == ("relay", "its-own", "other")
    assert outbox_engine(found).url.username == "facematch-sink"


def test_redis_takes_user_and_password_beside_its_address() -> None:
    login = {"redis_user": "facematch-matcher", "redis_password": SecretStr(SECRET)}
    pool = connect_once(Settings(redis="redis://somebody:else@host/0", **login)).connection_pool  # type: ignore[arg-type] # mypy sees one type for all
    assert (pool.connection_kwargs["username"], pool.connection_kwargs["password"]) == ("facematch-matcher", SECRET)
    assert pool.connection_class is Connection
    by_tls = connect_once(Settings(redis="rediss://me:own@host", redis_ca=Path(__file__))).connection_pool
    assert (by_tls.connection_kwargs["username"], by_tls.connection_kwargs["password"]) == ("me", "own")
    assert by_tls.connection_class is SSLConnection
    assert by_tls.connection_kwargs["ssl_ca_certs"] == __file__


@pytest.mark.parametrize(
    ("tls", "user", "protocol"),
    [(False, None, "PLAINTEXT"), (True, None, "SSL"), (False, "me", "SASL_PLAINTEXT"), (True, "me", "SASL_SSL")],
)
def test_kafka_is_talked_to_as_the_settings_say(tls: bool, user: str | None, protocol: str) -> None:
    password = SecretStr(SECRET) if user else None
    config = client_config(Settings(kafka_tls=tls, kafka_user=user, kafka_password=password), "test")
    assert config["security.protocol"] == protocol
    assert config.get("sasl.password") == (SECRET if user else None)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("PHOTO_ROOTS", "/srv/photos", "FACEMATCH_PHOTO_ROOTS"),
        ("PHOTO_PRIVATE_NETWORKS", "10.20.0.0/16", 'field "photo_private_networks"'),
        ("PHOTO_PRIVATE_NETWORKS", '["10.20.0.1/16"]', "FACEMATCH_PHOTO_PRIVATE_NETWORKS"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str, told: str) -> None:
    done = facematch("settings", COLUMNS="200", **{f"FACEMATCH_{name}": value})
    assert done.exit_code == 2
    assert told in done.stderr
    assert value not in done.output


def test_a_variable_that_is_no_setting_is_refused_and_the_nearest_is_named() -> None:
    refused = facematch("settings", FACEMATCH_TRESHOLD="0.3")
    assert refused.exit_code == 2
    assert "FACEMATCH_TRESHOLD is no setting: did you mean FACEMATCH_THRESHOLDS?" in said(refused)
    assert "`facematch settings` lists them all" in said(facematch("status", FACEMATCH_X="1"))
    assert facematch("settings", facematch_gpu_batch="3").exit_code == 0, "names are settings in either case"


def test_one_threshold_for_all_encoders_is_refused_with_what_to_type() -> None:
    refused = facematch("settings", COLUMNS="400", FACEMATCH_THRESHOLD="0.3")
    assert refused.exit_code == 2
    assert "type FACEMATCH_THRESHOLDS='{\"face_recognition\": 0.45}'" in said(refused)
    refused = facematch("settings", COLUMNS="400", FACEMATCH_COLLECTIONS='{"camp-a": {"threshold": 0.3}}')
    assert refused.exit_code == 2
    assert 'type "thresholds": {"face_recognition": 0.45}' in said(refused)
    good = facematch("settings", FACEMATCH_THRESHOLDS='{"face_recognition": 0.4}')
    assert (good.exit_code, '{"face_recognition": 0.4}' in said(good)) == (0, True)
    for wrong in ('{"sface": 2}', '{"sface": "near"}', "0.45"):
        assert facematch("settings", FACEMATCH_THRESHOLDS=wrong).exit_code == 2
    assert facematch("settings", FACEMATCH_CANDIDATES_PER_NEWCOMER="0").exit_code == 2


def test_a_file_that_is_no_setting_is_refused_and_the_nearest_is_named(folder: Path) -> None:
    (folder / "..data").mkdir()
    (folder / "of_somebody_else").write_text(SECRET)
    assert facematch("settings").exit_code == 0
    (folder / "facematch_redis_pasword").write_text(SECRET)
    refused = facematch("settings")
    assert refused.exit_code == 2
    assert "is no setting: did you mean facematch_redis_password?" in said(refused)
    assert SECRET not in refused.output


def test_a_line_of_the_stack_that_is_no_setting_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".facematch").mkdir()
    (tmp_path / ".facematch" / "stack.env").write_text("FACEMATCH_TRESHOLD=0.3\n")
    assert facematch("settings").exit_code == 2
