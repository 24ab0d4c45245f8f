"""The stubs of libraries without types name nothing that the libraries do not have: mypy would believe them."""

import ast
import importlib
from pathlib import Path

import pytest

STUBS = sorted((Path(__file__).parents[2] / "stubs").glob("*.pyi"))


@pytest.mark.parametrize("stub", STUBS, ids=lambda path: path.stem)
def test_what_a_stub_names_is_there(stub: Path) -> None:
    library = importlib.import_module(stub.stem)
    for node in ast.parse(stub.read_text()).body:
        if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
            continue
        found = getattr(library, node.name)
        for method in node.body:
            if isinstance(method, ast.FunctionDef):
                assert hasattr(found, method.name), f"{stub.stem}.{node.name} has no {method.name}"
