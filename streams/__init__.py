"""The stateful stream: the gallery, matching, and their recovery from the log."""
