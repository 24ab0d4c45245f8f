"""The encoders that this machine has: which there are, adding one, checking their weights."""
