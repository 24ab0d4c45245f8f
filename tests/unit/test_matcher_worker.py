"""The matcher's process: what is in the wrong ends, and is started again by whoever supervises it."""

import asyncio
from pathlib import Path

import pytest
from pydantic import SecretStr

from schemas.settings import Settings
from schemas.shard import Shard
from streams.matcher import worker as matcher
from streams.matcher.worker import _Worker, build_app


def test_one_that_crashed_ends_whatever_its_shutdown_waits_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """aiokafka's thread may fail to stop (a connection that closes meanwhile); Faust then waits for it for ever."""
    settings = Settings(_env_file=None, data_folder=tmp_path, erasure_key=SecretStr("0" * 32))
    worker = _Worker(build_app(settings, Shard()), override_logging=False, redirect_stdouts=False, quiet=True)
    ends: list[str] = []
    monkeypatch.setattr(matcher, "exit_within", lambda: ends.append("in any case"))

    async def crash() -> None:
        worker.app.beacon.reattach(worker.beacon)  # as it does when it starts
        await worker.app.crash(RuntimeError("for the test"))

    asyncio.run(crash())
    assert "in any case" in ends
