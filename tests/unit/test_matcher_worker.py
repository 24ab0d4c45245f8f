"""The matcher's process ends after a crash, and whoever supervises it starts another."""

import os
import signal
import subprocess
import sys
from pathlib import Path

# aiokafka's thread may fail to stop (a connection that closes meanwhile); Faust then waits for it without end.
CRASHES_AND_WAITS = """
import asyncio, threading
from runtime.process import stopping
from schemas.settings import Settings
from schemas.shard import Shard
from streams.matcher.worker import _Worker, build_app, start_matcher

stopping.STOP_WITHIN_S = 1
app = build_app(Settings(), Shard(), start_matcher(Settings(), Shard()))
worker = _Worker(app, override_logging=False, redirect_stdouts=False, quiet=True)

async def crash():
    worker.app.beacon.reattach(worker.beacon)  # as it does when it starts
    await worker.app.crash(RuntimeError("for the test"))

asyncio.run(crash())
print("crashed", flush=True)
threading.Event().wait()
"""


def test_one_that_crashed_ends_whatever_its_shutdown_waits_for(tmp_path: Path) -> None:
    env = os.environ | {"FACEMATCH_DATA_FOLDER": str(tmp_path), "FACEMATCH_ERASURE_KEY": "0" * 32}
    command = [sys.executable, "-W", "ignore", "-c", CRASHES_AND_WAITS]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "crashed\n", done.stderr
    assert done.returncode == -signal.SIGALRM
