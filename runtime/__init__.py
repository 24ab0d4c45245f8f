"""How a process talks to its servers, and says how it is."""
