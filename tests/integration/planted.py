"""Faults that are planted in workers: a record whose key names the worker and a way to die ends it wherever it is read.

Run in the workers' own processes, as `sitecustomize`: see `plant`.
"""

import shutil
from pathlib import Path

from tests.integration.world import World

_CODE = """
import os
import sys

import schemas.envelope as envelope


def _planted(read):
    def read_or_die(record, *arguments):
        answer = read(record, *arguments)
        worker = "gpu" if "gpu" in sys.argv else sys.argv[1] if len(sys.argv) > 1 else ""
        if f"raises-in-{worker}.".encode() in (record.key or b""):
            raise ZeroDivisionError
        if f"exits-in-{worker}.".encode() in (record.key or b""):
            os._exit(9)
        return answer

    return read_or_die


envelope.decode = _planted(envelope.decode)
envelope.decode_as_sent = _planted(envelope.decode_as_sent)
"""


def plant(world: World, folder: Path) -> None:
    """Have the workers that a world starts from now on die of records with such keys.

    A worker named W dies of an individual raises-in-W. by an exception, of exits-in-W. without one; W is encode, gpu,
    match, sink or compact.
    """
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_CODE)
    world.env["PYTHONPATH"] = f"{folder}:{Path.cwd()}"


def uproot(world: World) -> None:
    """Nothing is planted any more."""
    shutil.rmtree(world.env.pop("PYTHONPATH").partition(":")[0])
