"""The addresses of the local stack's workers, in a file that Prometheus reads too, and their answers to /readyz."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

_FILE = "targets.json"
_TIMEOUT_S = 2.0


class Readiness(NamedTuple):
    """A worker, its URL, and its answer to /readyz."""

    worker: str
    url: str
    answer: str


def write_targets(folder: Path, addresses: Mapping[str, str]) -> None:
    """Write the addresses of workers: https://prometheus.io/docs/guides/file-sd/"""
    targets = [{"targets": [address], "labels": {"process": name}} for name, address in addresses.items()]
    (folder / _FILE).write_text(json.dumps(targets, indent=2) + "\n")


def ask_targets(folder: Path) -> Iterator[Readiness]:
    """The readiness of each worker of the stack in that folder; nothing where none was ever started."""
    file = folder / _FILE
    for target in json.loads(file.read_text()) if file.exists() else []:
        url = f"http://{target['targets'][0]}"
        yield Readiness(target["labels"]["process"], url, _answer(f"{url}/readyz"))


def _answer(url: str) -> str:
    try:
        with urlopen(url, timeout=_TIMEOUT_S) as response:
            return str(response.read().decode()).strip()
    except HTTPError as error:
        with error:
            return error.read().decode().strip()
    except (URLError, TimeoutError, ConnectionError):
        return "does not answer"
