"""How a process talks to its servers, and shows its health, metrics, logs and traces."""
