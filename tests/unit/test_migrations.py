"""A migration that was released stays what it is, whatever becomes of the code around it."""

import ast
from pathlib import Path

import pytest

from deploy.migrations import versions

MIGRATIONS = sorted(Path(versions.__file__).parent.glob("0*.py"))


@pytest.mark.parametrize("path", MIGRATIONS, ids=lambda path: path.stem)
def test_a_migration_imports_nothing_of_facematch(path: Path) -> None:
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= {"sqlalchemy", "alembic"}
