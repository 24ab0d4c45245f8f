"""The matcher and the sink on parts in memory, under faults from one seed: see `world`."""
