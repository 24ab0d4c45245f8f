"""Publishing again what stands in the log."""
