"""`make test-soak SECONDS=600`: load and faults for so long, then a compaction, then the judgement."""

import argparse
import sys
import threading
import time

from runtime.process.background import Background
from runtime.servers.publisher import Publisher
from runtime.telemetry import logs
from tests.integration.world import World, running_servers
from tests.soak.faults import Faults, begin_compaction
from tests.soak.judgement import Judgement, judge
from tests.soak.load import Load
from tests.soak.monitor import Monitor

_SHOWN = 20
_TICK_S = 0.25


def main() -> int:
    """Returns 1 where anything is missing, too much or left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="how long load and faults last")
    parser.add_argument("--rate", type=float, default=40, help="happenings a second")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logs.configure(logs.LogStyle("text"))
    with running_servers(report) as (stack, lines, folder):
        world = World(stack, lines, folder / "data", delta_limit=1000, encoder_processes=1)
        world.start("encode-cpu", "match", "sink")
        try:
            return 0 if soak(world, options.seconds, options.rate, options.seed) else 1
        finally:
            world.stop()


def soak(world: World, seconds: float, rate: float, seed: int) -> bool:
    """Whether all was right in the end."""
    stopping, load, monitor = threading.Event(), Load(seed), Monitor()
    faults = Faults(world, report, stopping, min(30, seconds / 10), seed)
    publisher = Publisher(world.settings, "soak")
    publisher.publish_all(load.newcomers(1000))
    strikes = Background(faults.run, "faults").start()
    begun = time.monotonic()
    while (passed := time.monotonic() - begun) < seconds:
        due = int(passed * rate) - (load.happenings - 1000)
        publisher.publish_all([record for _ in range(due) for record in load.next()])
        monitor.look(world.stack.supervisor.children.values())
        strikes.check()
        stopping.wait(_TICK_S)
    stopping.set()
    strikes.join()
    strikes.check()
    report(f"{load.happenings} happenings and {len(faults.done)} faults; compactions ended with {faults.compactions}")
    report(str(monitor))
    report(f"workers that ended by themselves: {world.restarts() or 'none'}")
    report(f"before the last compaction: {judge(world)}")
    status = begin_compaction(world).wait()
    end = judge(world)
    report_problems(end)
    report(f"{'RIGHT' if end.is_right and status == 0 else 'WRONG'} after {seconds:.0f} s: {end}")
    return end.is_right and status == 0


def report_problems(judgement: Judgement) -> None:
    """What is wrong, the first of it."""
    for line in [*judgement.problems, *judgement.left][:_SHOWN]:
        report(line)


def report(line: str) -> None:
    """Print a line with the time."""
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
