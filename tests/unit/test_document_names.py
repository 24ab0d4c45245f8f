"""Whatever the documents name is there: files, tests, classes, settings, metrics, log lines, Redis' keys."""

import ast
import json
import re
from collections.abc import Iterator
from functools import cache

import pytest
import yaml

from deploy.access.roles import ROLES
from schemas.settings import SECRETS, Settings
from schemas.topics import TOPICS, Cleanup
from tests.documents import DOCUMENTS, PACKAGES, ROOT, Document, document
from tests.unit.test_board import ALERTS, declared

FOLDERS = (*PACKAGES, "docs", ".ci")
SUFFIXES = (".py", ".md", ".yaml", ".sql", ".toml", ".lock", ".mjs", ".java")

each_document = pytest.mark.parametrize("file", DOCUMENTS, ids=str)


@cache
def trees() -> dict[str, ast.Module]:
    """The code, by the file's path."""
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    return {str(file.relative_to(ROOT)): ast.parse(file.read_text()) for file in files}


def nodes() -> Iterator[ast.AST]:
    """Every node of the code that runs: that of the tests is left out."""
    for name, tree in trees().items():
        if not name.startswith("tests/"):
            yield from ast.walk(tree)


@cache
def classes() -> dict[str, frozenset[str]]:
    """The classes of the code, with the names of what is defined in each."""
    found: dict[str, frozenset[str]] = {}
    for node in nodes():
        if isinstance(node, ast.ClassDef):
            methods = {one.name for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}
            fields = {ast.unparse(one.target) for one in node.body if isinstance(one, ast.AnnAssign)}
            fields |= {
                one.attr
                for one in ast.walk(node)
                if isinstance(one, ast.Attribute) and ast.unparse(one.value) == "self"
            }
            found[node.name] = found.get(node.name, frozenset()) | methods | fields
    return found


@cache
def texts() -> str:
    """All strings of the code."""
    return "\n".join(node.value for node in nodes() if isinstance(node, ast.Constant) and isinstance(node.value, str))


def is_in_the_code(name: str) -> bool:
    """Whether it is a package, a module, or what a module defines: `package.module` or `package.module.name`."""
    path, _, last = name.replace(".", "/").rpartition("/")
    defined = (
        {one.name for one in trees()[f"{path}.py"].body if hasattr(one, "name")} if f"{path}.py" in trees() else ()
    )
    return (ROOT / path / last).is_dir() or f"{path}/{last}.py" in trees() or last in defined


@each_document
def test_files_are_there(file: Document) -> None:
    for span in file.spans:
        path, _, test = span.partition("::")
        if not re.fullmatch(r"[\w.*-]+(/[\w.*-]+)*/?", path):
            continue
        if "/" in path and path.split("/")[0] in FOLDERS:
            assert list(ROOT.glob(path)), f"{file}: {span}"
        elif path.endswith(SUFFIXES) and "/" not in path:
            assert any(list((ROOT / folder).rglob(path)) for folder in FOLDERS) or (ROOT / path).exists(), (
                f"{file}: {span}"
            )
        elif path.split(".")[0] in PACKAGES and "." in path:
            assert is_in_the_code(path), f"{file}: {span}"
        if test:
            names = {one.name for one in ast.walk(trees()[path]) if isinstance(one, ast.FunctionDef)}
            assert test in names, f"{file}: {span}"


@each_document
def test_classes_and_alerts_are_there(file: Document) -> None:
    alerts = {rule["alert"] for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]}
    for span in file.spans:
        if found := re.fullmatch(r"([A-Z][a-z]+(?:[A-Z][a-z0-9]+)+|[A-Z][a-z]+(?=\.))(?:\.(\w+))?", span):
            name, member = found.groups()
            assert name in alerts | classes().keys(), f"{file}: {span}"
            assert member is None or member in classes()[name], f"{file}: {span}"


@each_document
def test_settings_are_there(file: Document) -> None:
    known = {f"FACEMATCH_{name.upper()}" for name in Settings.model_fields} | {SECRETS}
    assert set(re.findall(r"FACEMATCH_[A-Z]+(?:_[A-Z]+)*", file.text)) <= known


@each_document
def test_metrics_and_tables_of_the_outbox_are_there(file: Document) -> None:
    series = {name for one in declared() for name in (one, re.sub("_(bucket|sum|count)$", "", one))}
    from_files = {f"facematch_{name}" for name in Settings.model_fields}
    tables = set(re.findall(r"facematch_outbox\w*", (ROOT / "producers" / "outbox" / "outbox.sql").read_text()))
    assert set(re.findall(r"facematch(?:_[a-z]+)+", file.text)) <= series | from_files | tables


@each_document
def test_lines_that_are_quoted_are_logged(file: Document) -> None:
    events = [span.strip("… ") for row in file.rows("`event`") for span in re.findall("`([^`]+)`", row[0])]
    for line in re.findall(r'^\{"[^`]*?\}$', file.text, re.MULTILINE):
        whole = json.loads(re.sub(r",\s*…", "", line.replace("\n", "")))
        events += [whole["event"]]
        assert is_in_the_code(whole.get("logger", "schemas.topics")), f"{file}: {line}"
    for event in events:
        assert event in texts(), f"{file}: {event}"


def test_the_topics_are_those_of_the_table() -> None:
    rows = {row[0].strip("`"): row[1:] for row in document("docs/operating.md").rows("topic")}
    assert rows.keys() == {topic.name for topic in TOPICS}
    for topic in TOPICS:
        events, _, partition, kept = rows[topic.name]
        assert set(re.findall("`(.+?)`", events)) == {event.__name__ for event in topic.carries}
        by = "one" if topic.partitions == 1 else "by collection" if topic.partitioned_by_collection else "by key"
        assert partition == by
        assert ("compacted" in kept) == (topic.cleanup is Cleanup.COMPACT)
        days = [time.days for time in (topic.retention, topic.tombstones_kept) if time is not None]
        assert [int(number) for number in re.findall(r"(\d+) days", kept)] == days


def keys_in_the_code() -> set[str]:
    """The last part of each key of a shard's partition that the code asks `runtime.servers.redis.key` for."""
    calls = (node for node in nodes() if isinstance(node, ast.Call) and len(node.args) == 4)
    named = (call.args[1] for call in calls if ast.unparse(call.func).split(".")[-1] == "key")
    return {ast.literal_eval(name) for name in named if isinstance(name, ast.Constant)}


def test_every_key_of_redis_is_described_with_who_may_write_it() -> None:
    described = {row[0].strip("`"): row[2] for row in document("docs/internals/redis.md").rows("key")}
    of_a_partition = {f"{name}:*" if name == "chunk" else name for name in keys_in_the_code()}
    assert described.keys() == of_a_partition | {"compaction-done"}
    for name, writers in described.items():
        key = f"{{*}}:{name}" if name in of_a_partition else name
        assert set(re.findall("`(.+?)`", writers)) == {role.name for role in ROLES if key in role.keys}, name


def test_every_invariant_names_the_test_that_holds_it() -> None:
    rows = list(document("docs/internals/invariants.md").rows("id"))
    assert len(rows) >= 15
    for number, _, _, held_by in rows:
        assert "::" in held_by or held_by.startswith("no test yet"), number
