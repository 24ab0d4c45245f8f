"""Running a replay from the command line."""
