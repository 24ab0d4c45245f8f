"""The command line: `facematch --help` reads like a map of the system, in the order of these imports."""

# isort: off
import deploy.commands.try_it
import deploy.commands.produce
import deploy.commands.see
import deploy.commands.operate
import deploy.commands.grants
import deploy.commands.replay
import deploy.commands.compaction
import deploy.commands.what_if
import deploy.commands.letters
import deploy.commands.encoder
import deploy.commands.work  # noqa: F401 - all of them register commands
from deploy.commands.app import app
# isort: on

__all__ = ["app"]

if __name__ == "__main__":
    app()
