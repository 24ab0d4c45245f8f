"""What `facematch encoder calibrate` prints."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from deploy.calibration.measuring import encode_all, people_in, sample_of
from deploy.calibration.statistics import FEW_PAIRS, FMRS, Interval, KnownPeople, Measured
from schemas.encoders.known import encoder_named
from schemas.settings import Settings

_GALLERIES = (10_000, 100_000, 1_000_000)


def calibrate(console: Console, settings: Settings, folder: Path, encoders: list[str], pairs: int) -> None:
    """Measure encoders on the same photos, and print what each is worth. Raises FolderError, NoSuchEncoderError."""
    manifests = [encoder_named(settings.encoders_folder, name) for name in encoders]
    photos, groups = people_in(folder)
    for manifest in manifests:
        with Progress(console=console, transient=True) as bar:
            task = bar.add_task(manifest.name, total=len(photos))
            encoded = encode_all(
                settings,
                manifest.name,
                photos,
                lambda done, bar=bar, task=task: bar.update(task, completed=done),  # type: ignore[misc]
            )
        rejected = ", ".join(f"{count} {reason}" for reason, count in encoded.rejected.most_common()) or "none"
        console.print(f"[bold]{escape(manifest.name)}[/] ({manifest.id}): {len(encoded.files)} of {len(photos)} photos")
        console.print(f"rejected: {rejected}", soft_wrap=True)
        sample = sample_of(encoded, groups)
        console.print(
            f"{len(sample.names)} people, {len(sample.same.distances)} pairs of one person, "
            f"{sample.strangers} of strangers"
        )
        _print_points(console, sample)
        _print_pairs(console, folder, encoded.files, sample, pairs)


def _print_points(console: Console, sample: KnownPeople) -> None:
    table = Table("rate", "threshold", "recall, 95 %", "pairs", *map(_people, _GALLERIES))
    missing: list[str] = []
    groups = Table("group", "at", "its false match rate, 95 %", "times", title="groups", title_justify="left")
    for fmr in FMRS:
        found = sample.measured(fmr)
        if found is None:
            needed = sample.people_needed(fmr)
            missing.append(f"a rate of {fmr:g} is not measurable with these photos (needs {needed:,} people)")
            continue
        table.add_row(
            f"{fmr:g}",
            f"{found.threshold:.3f}",
            _share(found.recall, ".3f"),
            f"{found.pairs}" + (" (a hint)" if found.pairs < FEW_PAIRS else ""),
            *(f"{fmr * people:g}" for people in _GALLERIES),
        )
        _add_groups(groups, found)
    console.print(table)
    for line in missing:
        console.print(line, soft_wrap=True)
    console.print(
        "rate: the share of strangers' pairs within the threshold; last columns: strangers whom a newcomer meets among "
        "so many people",
        soft_wrap=True,
    )
    if groups.row_count:
        console.print(groups)


def _add_groups(table: Table, found: Measured) -> None:
    for name, rate in sorted(found.groups.items(), key=lambda one: one[1].value, reverse=True):
        table.add_row(escape(name), f"{found.fmr:g}", _share(rate, ".1e"), f"{rate.value / found.fmr:.0f}")


def _print_pairs(console: Console, folder: Path, files: list[Path], sample: KnownPeople, count: int) -> None:
    for title, found in (("nearest strangers", sample.nearest), ("farthest of one person", sample.same)):
        order = range(len(found.distances))
        chosen = list(order[:count] if found is sample.nearest else order[::-1][:count])
        if chosen:
            table = Table("distance", "one", "other", title=title, title_justify="left")
            for place in chosen:
                names = (files[side[place]].relative_to(folder) for side in (found.one, found.other))
                table.add_row(f"{found.distances[place]:.3f}", *(escape(str(name)) for name in names))
            console.print(table)


def _share(share: Interval, form: str) -> str:
    return f"{share.value:{form}} ({share.low:{form}} to {share.high:{form}})"


def _people(count: int) -> str:
    return f"of {count // 1000:,} k"
