"""The board and the alert rules ask for nothing but what the workers say, and the board is that of `deploy.board`."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import promql_parser as promql
import pytest
import yaml
from prometheus_client import Counter, Gauge, Histogram

from deploy.monitoring import board
from runtime.telemetry import metrics

ALERTS = Path(board.__file__).parent / "prometheus" / "alerts.yaml"
OF_THE_TARGET = {"job", "instance"}
OF_THE_PROCESS = {"process_start_time_seconds", "process_resident_memory_bytes"}


class Ask(NamedTuple):
    """An expression, and the texts that name labels of what it yields."""

    where: str
    expression: str
    texts: tuple[str, ...]


def declared() -> dict[str, set[str]]:
    """The labels of every series that can be asked for, by its name."""
    found: dict[str, set[str]] = {name: set() for name in OF_THE_PROCESS}
    for metric in (*vars(metrics).values(), *metrics.QUALITY.values()):
        match metric:
            case metrics.CallbackGauge():
                found[metric.name] = set(metric.labels)
            case metrics.ManyHistogram():
                found[f"{metric.name}_bucket"] = {metric.label, "le"}
                found |= {f"{metric.name}_{part}": {metric.label} for part in ("sum", "count")}
            case Counter():
                found[f"{metric._name}_total"] = set(metric._labelnames)
            case Gauge():
                found[metric._name] = set(metric._labelnames)
            case Histogram():
                found[f"{metric._name}_bucket"] = {*metric._labelnames, "le"}
                found |= {f"{metric._name}_{part}": set(metric._labelnames) for part in ("sum", "count")}
    return {name: labels | OF_THE_TARGET for name, labels in found.items()}


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(board.FILE.read_text())["panels"] if panel["type"] != "row"]


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def asks() -> Iterator[Ask]:
    for panel in panels():
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "5m").replace("$collection", ".*")
            yield Ask(f"panel {panel['title']}", expression, (target["legendFormat"],))
    for rule in rules():
        yield Ask(f"alert {rule['alert']}", rule["expr"], tuple(rule["annotations"].values()))


def labels_of(expression: Any) -> set[str]:
    """The labels of what an expression yields. Fails where it asks for a series or a label that nothing has."""
    match expression:
        case promql.VectorSelector():
            assert expression.name in declared(), f"no metric {expression.name}"
            found = declared()[expression.name]
            asked = {matcher.name for matcher in expression.matchers.matchers}
            assert asked <= found, f"{expression.name} has no label {asked - found}"
        case promql.MatrixSelector():
            found = labels_of(expression.vector_selector)
        case promql.AggregateExpr():
            inner = labels_of(expression.expr)
            found = set() if expression.modifier is None else set(expression.modifier.labels)
            assert found <= inner, f"by {found - inner}, which is no label there"
        case promql.BinaryExpr():
            left, right = labels_of(expression.lhs), labels_of(expression.rhs)
            matching = None if expression.modifier is None else expression.modifier.matching
            on = left if matching is None else set(matching.labels)
            assert not left or not right or on <= left & right, f"{left} and {right} never match"
            found = left or right
        case promql.Call():
            found = set[str]().union(*(labels_of(argument) for argument in expression.args))
            found -= {"le"} if expression.func.name == "histogram_quantile" else set()
        case promql.ParenExpr():
            found = labels_of(expression.expr)
        case promql.NumberLiteral():
            found = set()
        case _:
            raise AssertionError(f"{type(expression).__name__}: not looked into")
    return found


@pytest.mark.parametrize("ask", list(asks()), ids=lambda ask: ask.where)
def test_what_is_asked_for_is_what_workers_say(ask: Ask) -> None:
    has = labels_of(promql.parse(ask.expression))
    for text in ask.texts:
        named = set(re.findall(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}", text)) - {"value"}
        assert named <= has, f"{text!r} names {named - has}, which is not there"


def test_every_metric_is_on_the_board() -> None:
    expressions = "\n".join(target["expr"] for panel in panels() for target in panel["targets"])
    whole = {re.sub("_(bucket|sum|count)$", "", name) for name in declared()}
    assert {name for name in whole if name not in expressions} == set()


def test_the_board_is_the_one_that_is_described() -> None:
    assert board.FILE.read_text() == board.text(), "stale: run `python -m deploy.monitoring.board`"


def test_no_panel_lies_on_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(board.FILE.read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells
    numbers = [panel["id"] for panel in json.loads(board.FILE.read_text())["panels"]]
    assert len(numbers) == len(set(numbers))


def test_every_alert_says_how_bad_it_is_what_happened_and_where_to_read_on() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))
    for rule in rules():
        anchor = re.sub(r"(?<!^)(?=[A-Z])", "-", rule["alert"]).lower()
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{anchor}"
        assert promql.parse_duration(rule.get("for", "1m"))
