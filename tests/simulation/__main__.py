"""`make simulate SEEDS=1000` tries as many seeds; `make simulate SEED=7` plays that one again, line by line."""

import argparse
import sys
import time

from runtime.telemetry import logs
from tests.simulation.run import FailedSeedError, simulate


def main() -> int:
    """Returns 1 where a seed fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="this one alone, and print what happens in it")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds) if options.seed is None else [options.seed]
    logs.through_stdlib()
    begun = time.monotonic()
    try:
        for seed in seeds:
            world = simulate(seed)
    except FailedSeedError as error:
        print("\n".join([*error.lines, "", str(error)]))
        return 1
    if options.seed is not None:
        print("\n".join(world.schedule.lines))
    print(f"{len(seeds)} seeds, {len(seeds) / (time.monotonic() - begun):.1f} a second: no difference from the oracle")
    return 0


if __name__ == "__main__":
    sys.exit(main())
