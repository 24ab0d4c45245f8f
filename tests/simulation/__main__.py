"""`make simulate SEEDS=1000` tries as many seeds; `make simulate SEED=7` plays that one again, line by line."""

import argparse
import multiprocessing
import os
import sys
import time

from runtime.process.cores import cores
from tests.simulation.run import outcome_of, simulate

# glibc gives each thread memory of its own, and returns large pieces at once: half of a seed's time went to that.
_MEMORY = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "30000000", "MALLOC_TRIM_THRESHOLD_": "1000000000"}


def main() -> int:
    """Returns 1 where a seed fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="this one alone, and print what happens in it")
    options = parser.parse_args()
    if options.seed is not None:
        print(outcome_of(options.seed) or "\n".join(simulate(options.seed).schedule.lines))
        return 0
    begun = time.monotonic()
    os.environ |= _MEMORY  # for the processes that are started
    with multiprocessing.get_context("spawn").Pool(cores()) as pool:
        for outcome in pool.imap_unordered(outcome_of, range(options.first, options.first + options.seeds), 10):
            if outcome:
                print(outcome)
                return 1
    rate = options.seeds / (time.monotonic() - begun)
    print(f"{options.seeds} seeds, {rate:.0f} a second: no difference from the oracle")
    return 0


if __name__ == "__main__":
    sys.exit(main())
