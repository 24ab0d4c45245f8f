"""A setting that is wrong is an error that names it, exit status 2, and its value is not shown."""

import pytest
from typer.testing import CliRunner

from deploy.cli import app


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("PHOTO_ROOTS", "/srv/photos", "FACEMATCH_PHOTO_ROOTS"),
        ("PHOTO_PRIVATE_NETWORKS", "10.20.0.0/16", 'field "photo_private_networks"'),
        ("PHOTO_PRIVATE_NETWORKS", '["10.20.0.1/16"]', "FACEMATCH_PHOTO_PRIVATE_NETWORKS"),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str) -> None:
    monkeypatch.setenv(f"FACEMATCH_{name}", value)
    result = CliRunner().invoke(app, ["settings"], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert told in result.stderr
    assert value not in result.output
