"""Which of a folder's photos show one person, for measuring."""

import csv
from pathlib import Path

_LIST = "master.csv"


class Identities:
    """A subfolder holds one person's photos, unless it has a list `master.csv` (file_x, file_y, Decision: Yes or No).

    Photos in different folders show different people.
    """

    def __init__(self, photos: list[Path]) -> None:
        self._listed: dict[Path, dict[frozenset[str], bool]] = {}
        for folder in {photo.parent for photo in photos}:
            if (folder / _LIST).exists():
                with (folder / _LIST).open(newline="") as file:
                    rows = csv.DictReader(file)
                    self._listed[folder] = {
                        frozenset((row["file_x"], row["file_y"])): row["Decision"] == "Yes" for row in rows
                    }

    def same(self, a: Path, b: Path) -> bool | None:
        """Whether two photos show one person; None where it is not known."""
        if a.parent != b.parent:
            return False
        if a.parent not in self._listed:
            return True
        return self._listed[a.parent].get(frozenset((a.name, b.name)))
