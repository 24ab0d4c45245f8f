"""Folders of the local stack that only their owner may read: photos, embeddings and passwords are in them."""

from pathlib import Path

UMASK = 0o077  # of the stack's processes


def private_folder(folder: Path) -> Path:
    """The folder, made where it is missing, closed to all but its owner; the folders above it stay as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder
