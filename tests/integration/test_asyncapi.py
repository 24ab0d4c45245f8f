"""The schemas and the AsyncAPI document, judged by others: ajv in its strict mode, and AsyncAPI's own JSON Schema."""

import json
import shutil
import subprocess
from pathlib import Path

from schemas.generate import FOLDER, asyncapi
from tests.integration.examples import NODE, npm_packages

_VALIDATOR = Path(__file__).parent / "npm"


def complaints(schemas: Path) -> list[str]:
    command = [NODE, str(_VALIDATOR / "validate.mjs"), str(npm_packages(_VALIDATOR)), str(schemas)]
    done = subprocess.run(command, check=True, capture_output=True, encoding="utf-8", timeout=60)
    return done.stdout.splitlines()


def test_ajv_and_asyncapi_have_nothing_to_complain_of() -> None:
    assert complaints(FOLDER) == []


def test_they_would_complain(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "schemas", ignore=shutil.ignore_patterns("*.py"))
    document = asyncapi()
    document["channels"]["individuals"]["parameters"] = []
    (tmp_path / "schemas" / "asyncapi.json").write_text(json.dumps(document))
    schema = tmp_path / "schemas" / "json" / "PairDecided.schema.json"
    schema.write_text(schema.read_text().replace('"$defs"', '"unheardOf": 1, "$defs"', 1).replace('"title"', '"titel"'))
    found = "\n".join(complaints(tmp_path / "schemas"))
    assert "PairDecided strict mode: unknown keyword" in found
    assert "asyncapi.json" in found


def test_an_address_has_the_namespace_and_a_payload_its_name() -> None:
    document = asyncapi()
    for name, channel in document["channels"].items():
        assert channel["address"] == f"{{namespace}}.{name}"
        assert channel["parameters"]["namespace"]["default"] == "facematch"
    for name, message in document["components"]["messages"].items():
        schema = json.loads((FOLDER / message["payload"]["schema"]["$ref"]).read_text())
        assert (schema["$id"], schema["title"]) == (f"urn:facematch:{name}", name)
