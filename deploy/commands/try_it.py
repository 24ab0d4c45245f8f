"""Commands for who tries it: the demo, and the stack on this machine."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from deploy.commands.app import TRY, app, read_settings
from deploy.terminal import Terminal


@app.command(rich_help_panel=TRY)
def demo(
    photos: Annotated[
        Path | None, typer.Option(help="A folder of your own photos.", exists=True, file_okay=False)
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="sface, or face_recognition as before. Unset: sface, if it is to be had.")
    ] = None,
) -> None:
    """The whole system on real servers and photos: start, submit, watch duplicates arrive, sum up, stop."""
    from deploy.demo.run import DemoFailedError, run_demo

    console = Terminal()
    try:
        run_demo(console, read_settings().data_folder, photos, encoder)
    except DemoFailedError as error:
        console.print(f"[bold red]failed:[/] {error}")
        raise typer.Exit(1) from None


@app.command(rich_help_panel=TRY)
def up() -> None:
    """Start servers and workers on this machine and keep them running; Ctrl-C stops them."""
    from deploy.compaction.schedule import Schedule
    from deploy.local.up import run_up

    settings = read_settings()
    Schedule.parse(settings.compact_at, settings.time_zone)
    run_up(Terminal(), settings.data_folder)


@app.command(rich_help_panel=TRY)
def down(
    erase: Annotated[bool, typer.Option("--erase", help="Remove all data of the local stack as well.")] = False,
) -> None:
    """Stop the stack that `facematch up` runs on this machine."""
    from deploy.local.stack import stop_running

    folder = read_settings().data_folder
    stopped = stop_running(folder)
    Terminal().plain("stopped" if stopped else f"no stack is running in {folder}")
    if erase and folder.exists():
        shutil.rmtree(folder)
        Terminal().plain(f"erased {folder}")
