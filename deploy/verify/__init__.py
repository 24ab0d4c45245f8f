"""Holding an encoder against its reference."""
