"""Running compactions: now, and by a schedule."""
