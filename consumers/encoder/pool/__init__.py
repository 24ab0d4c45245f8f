"""A pool of processes, fed by one consumer; answers to one key leave in the order of its records."""
