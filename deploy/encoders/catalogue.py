"""What `facematch encoder list` and `encoder show` print."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from consumers.faces.networks.stored import weights_path
from consumers.faces.networks.weights import WeightsError
from schemas.encoders.known import MANIFEST_FILE, SHIPPED, encoder_named, known_encoders, shipped_text
from schemas.encoders.manifest import EncoderManifest
from schemas.settings import Settings


def print_encoders(console: Console, settings: Settings) -> None:
    """Print each encoder with its id, and whether its weights are there."""
    table = Table("encoder", "id", "numbers", "weights", title="encoders", title_justify="left")
    table.columns[1].overflow = "fold"
    for manifest in known_encoders(settings.encoders_folder).values():
        state = "[bold red]see verify[/]" if weights_problems(settings, manifest) else "good"
        table.add_row(escape(manifest.name), escape(manifest.id), str(manifest.output.dimensions), state)
    console.print(table)


def print_manifest(console: Console, settings: Settings, name: str) -> None:
    """Print the manifest of an encoder as it is written: it can be a file of one's own. Raises NoSuchEncoderError."""
    manifest = encoder_named(settings.encoders_folder, name)
    text = (
        shipped_text(manifest.name)
        if manifest.name in SHIPPED
        else (settings.encoders_folder / manifest.name / MANIFEST_FILE).read_text()
    )
    console.print(f"# id: {manifest.id}\n{text}".rstrip(), soft_wrap=True, highlight=False, markup=False)


def print_weights(console: Console, settings: Settings, manifest: EncoderManifest) -> bool:
    """Print what is wrong with the weights of an encoder, or that nothing is. Returns whether nothing is."""
    problems = weights_problems(settings, manifest)
    for problem in problems:
        console.print(f"[bold red]failed:[/] {escape(problem)}", soft_wrap=True)
    if not problems:
        count = len(manifest.weights)
        console.print(f"{manifest.name}: {count} files of weights, each with the SHA-256 of the manifest", markup=False)
    return not problems


def weights_problems(settings: Settings, manifest: EncoderManifest) -> list[str]:
    """What is wrong with each file of weights that is missing, or another than the manifest names."""
    problems = []
    for one in manifest.weights:
        try:
            weights_path(settings, manifest, one)
        except WeightsError as error:
            problems.append(str(error))
    return problems
