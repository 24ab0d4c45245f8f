"""The real servers and all workers as child processes, from packages alone: for the demo, the tests, a laptop."""
