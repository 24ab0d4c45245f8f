"""What `facematch settings` prints."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from schemas.settings import SECRETS, SECRETS_FOLDER, Settings, secrets_folder


def print_settings(console: Console, settings: Settings) -> None:
    """Print all settings in force, without the secrets, and where they may come from."""
    table = Table("environment variable and value", "meaning", show_lines=True)
    table.columns[0].overflow = "fold"
    for name, field in Settings.model_fields.items():
        value = escape(settings.shown(name))
        table.add_row(f"FACEMATCH_{name.upper()}\n[bold]{value}[/]", escape(field.description or ""))
    console.print(table)
    folder = secrets_folder()
    console.print(
        f"Each may come from a file instead, facematch_<setting> (facematch_kafka_password, say), in the folder that "
        f"{SECRETS} names; unset: {SECRETS_FOLDER}, if it is there. Read now: {folder or 'none'}.",
        soft_wrap=True,
        highlight=False,
    )
