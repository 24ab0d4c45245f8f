"""Registrations from a table in the registration system's own database."""
