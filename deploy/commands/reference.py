"""`facematch encoder verify`: the encoder beside the reference."""

from pathlib import Path
from typing import Annotated

import typer

from deploy.commands.app import OPERATE, Application, UserError, app, read_settings
from deploy.terminal import Terminal

encoder = Application(no_args_is_help=True)
app.add_typer(
    encoder,
    name="encoder",
    rich_help_panel=OPERATE,
    help="`encoder verify` compares the encoder with face_recognition.",
)


@encoder.callback()
def _encoder() -> None:
    """What turns photos into embeddings."""


@encoder.command()
def verify(
    photos: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER", help="A folder of photos, each of its subfolders one person. Default: the demo's photos."
        ),
    ] = None,
) -> None:
    """Compare the encoder with the face_recognition package; exit status 1 beyond its limits."""
    from deploy.demo.photos import fetch_demo_photos
    from deploy.verify.compare import verify as run
    from producers.submit.entries import photos_in

    found = read_settings()
    folder = photos or fetch_demo_photos(found.data_folder / "photos")
    if not folder.is_dir() or not photos_in(folder):
        raise UserError(f"{folder}: no folder with photos in it")
    try:
        good = run(Terminal(), found, folder)
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is the reference, and not installed: pip install 'facematch[dev]'") from None
    raise typer.Exit(0 if good else 1)
