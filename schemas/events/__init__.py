"""The events, as pydantic models: the contract with producers and consumers."""
