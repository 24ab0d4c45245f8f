"""Log lines, metrics, traces and health of a process."""
