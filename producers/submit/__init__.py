"""Registrations from photos, folders and lists."""
