"""The Grafana board as the JSON that Grafana reads.

`python -m deploy.monitoring.board` writes `grafana/facematch.json` beside it anew; a test fails when it is stale.
"""

import json
from pathlib import Path
from typing import Any

from deploy.monitoring.panels import ROWS, Panel

FILE = Path(__file__).parent / "grafana" / "facematch.json"
_DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH = 24  # of a board, in Grafana's columns


def board() -> dict[str, Any]:
    """The dashboard model: https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/"""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        panels.append(
            _placed({"type": "row", "title": title, "collapsed": False, "panels": []}, panels, 0, y, _WIDTH, 1)
        )
        x, y, height = 0, y + 1, 0
        for panel in row:
            width = _WIDTH // panel.of
            if x + width > _WIDTH:
                x, y = 0, y + height
            height = 4 if panel.kind == "stat" else 8
            panels.append(_placed(_panel(panel), panels, x, y, width, height))
            x += width
        y += height
    return {
        "title": "facematch",
        "uid": "facematch",
        "tags": ["facematch"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": panels,
    }


def _placed(model: dict[str, Any], before: list[Any], x: int, y: int, width: int, height: int) -> dict[str, Any]:
    return {"id": len(before) + 1, "gridPos": {"x": x, "y": y, "w": width, "h": height}, **model}


def _panel(panel: Panel) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + number), "datasource": _DATA_SOURCE, "expr": expression, "legendFormat": legend}
        for number, (expression, legend) in enumerate(panel.asks)
    ]
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.help,
        "datasource": _DATA_SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": targets,
    }


def _variables() -> list[dict[str, Any]]:
    query = "label_values(facematch_gallery_people, collection)"
    return [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
        {
            "name": "collection",
            "type": "query",
            "datasource": _DATA_SOURCE,
            "query": {"query": query, "refId": "collection"},
            "refresh": 2,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        },
    ]


def text() -> str:
    """The file's contents."""
    return json.dumps(board(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
