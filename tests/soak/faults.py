"""What happens to processes: each worker and each server is killed, stopped or emptied, in turn."""

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from itertools import cycle

from runtime.servers.redis import connect_once
from tests.integration.world import World


class Faults:
    """One fault after the other until `stopping` is set, with pauses of up to `longest_pause_s`.

    `done` names those that were, `compactions` are the exit statuses of compactions begun among them.
    """

    def __init__(
        self, world: World, report: Callable[[str], None], stopping: threading.Event, longest_pause_s: float, seed: int
    ) -> None:
        self.done: list[str] = []
        self.compactions: list[int] = []
        self._world, self._report, self._stopping = world, report, stopping
        self._longest_pause_s = longest_pause_s
        self._random = random.Random(seed)
        self._compacting: list[subprocess.Popen[bytes]] = []

    def run(self) -> None:
        """Until `stopping` is set; returns once everything runs again."""
        kill, server = self._kill, self._signal_server
        plan: list[tuple[str, Callable[[], None]]] = [
            ("the matcher is killed", partial(kill, "match")),
            ("the sink is killed", partial(kill, "sink")),
            ("Redis is emptied", self._empty_redis),
            ("a compaction begins", self._compact),
            ("the matcher is killed", partial(kill, "match")),
            ("Postgres is restarted", partial(server, "postgres", signal.SIGINT)),
            ("the matcher stands still", self._freeze_matcher),
            ("Kafka is restarted", partial(server, "kafka", signal.SIGTERM)),
            ("a compaction begins", self._compact),
            ("Redis is killed", partial(server, "redis", signal.SIGKILL)),
            ("the encoder is killed", partial(kill, "encode-cpu")),
            ("Kafka is killed", partial(server, "kafka", signal.SIGKILL)),
            ("the sink is killed", partial(kill, "sink")),
            ("Postgres is killed", partial(server, "postgres", signal.SIGKILL)),
        ]
        for name, strike in cycle(plan):
            if self._stopping.wait(self._random.uniform(0.5, 1) * self._longest_pause_s):
                break
            self._report(name)
            strike()
            self.done.append(name)
        self.compactions += [compaction.wait() for compaction in self._compacting]

    def _kill(self, worker: str) -> None:
        self._world.crash(worker)

    def _signal_server(self, name: str, number: signal.Signals) -> None:
        """End a server, which is started again, and wait until it answers."""
        server = self._world.stack.supervisor.children[name]
        ended = server.process
        assert ended is not None
        ended.send_signal(number)
        ended.wait(60)
        self._world.stack.wait_for_server(name)

    def _empty_redis(self) -> None:
        with closing(connect_once(self._world.settings)) as redis:
            redis.flushall()

    def _freeze_matcher(self) -> None:
        """For longer than the group keeps a member that does not answer, if there is time for that."""
        matcher = self._world.workers["match"]
        matcher.signal(signal.SIGSTOP)
        self._stopping.wait(3 * self._longest_pause_s)
        matcher.signal(signal.SIGCONT)

    def _compact(self) -> None:
        self._compacting.append(begin_compaction(self._world))


def begin_compaction(world: World) -> "subprocess.Popen[bytes]":
    """`facematch compact`, of everything."""
    env = os.environ | world.stack.environment | world.env
    return subprocess.Popen(
        [sys.executable, "-m", "deploy.cli", "compact"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
