"""Erasing an individual, and the receipt."""
