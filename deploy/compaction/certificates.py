"""Certificates of compactions, as tables for people and as JSON."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sqlalchemy import select

from runtime.servers.postgres import reading_engine
from schemas.events.certificates import CompactionCertified
from schemas.settings import Settings
from schemas.shard import Shard
from schemas.tables import certificates

_ROWS = (
    "collection",
    "log",
    "people",
    "threshold",
    "index",
    "recall",
    "95 % confidence",
    "sample",
    "pairs kept",
    "pairs found",
    "pairs retracted",
    "checks made up for",
    "in service",
    "checksum",
    "took",
    "memory",
    "certificate",
)


def problem_of(certificate: CompactionCertified) -> str | None:
    """The reason why a certified index is not in service, None where it is."""
    recall = certificate.recall
    if recall is None or recall.recall >= recall.floor:
        return None
    return (
        f"{certificate.collection}: the index finds {recall.recall:.4f} of the pairs, less than the floor of "
        f"{recall.floor}; it is not put into service, what was there stays"
    )


def certificate_table(found: Sequence[CompactionCertified], title: str) -> Table:
    """A table of certificates, one below the other: each has many figures."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for certificate in found:
        for name, value in zip(_ROWS, _values(certificate), strict=True):
            table.add_row(name, value)
        table.add_section()
    return table


def print_certificates(console: Console, settings: Settings, collection: str | None, limit: int, as_json: bool) -> None:
    """Print the latest certificates, in the order in which they were made."""
    found = latest_certificates(settings, collection, limit)
    if as_json:
        for certificate in found:
            console.print(certificate.model_dump_json(), soft_wrap=True, highlight=False, markup=False)
    elif found:
        console.print(certificate_table(found, "certificates"))
    else:
        of = "" if collection is None else f" of collection {escape(collection)}"
        console.print(f"no compaction{of} has been certified yet: `facematch compact` makes one")


def latest_certificates(settings: Settings, collection: str | None, limit: int) -> list[CompactionCertified]:
    """The latest certificates, at most `limit`, the latest last."""
    query = select(certificates.c.certificate).order_by(certificates.c.certified_at.desc()).limit(limit)
    if collection is not None:
        query = query.where(certificates.c.collection == collection)
    engine = reading_engine(settings)
    with engine.connect() as connection:
        rows = list(connection.scalars(query))
    engine.dispose()
    return [CompactionCertified.model_validate(row) for row in reversed(rows)]


def _values(certificate: CompactionCertified) -> tuple[str, ...]:
    index, recall, pairs = certificate.index, certificate.recall, certificate.pairs
    shard = Shard(certificate.shard, certificate.shards)
    of_shard = "" if shard.count == 1 else f", shard {shard}"
    return (
        f"[bold]{escape(certificate.collection)}[/], encoder {certificate.encoder or 'none'}{of_shard}",
        f"below offset {certificate.offset} of partition {certificate.partition}",
        str(certificate.people) if certificate.people else "0: nobody is living in it",
        f"{certificate.threshold}",
        "-" if index is None else f"M {index.m}, ef_construction {index.ef_construction}, ef {index.ef}",
        "-" if recall is None else f"{recall.recall:.4f}; at least {recall.floor} is wanted",
        "-" if recall is None else f"{recall.low:.4f} to {recall.high:.4f}",
        "-"
        if recall is None
        else f"{recall.people} {'places near people' if recall.made_up else 'people'}, {recall.pairs} pairs",
        *(str(count) for count in (pairs.kept, pairs.found, pairs.retracted, certificate.checked)),
        "yes" if certificate.in_service else "no",
        certificate.checksum or "-",
        f"{sum(certificate.seconds.values()):.1f} s: "
        + ", ".join(f"{name} {seconds:.1f}" for name, seconds in certificate.seconds.items()),
        f"{certificate.memory_mb:.0f} MB at most",
        f"{certificate.certificate_id}, begun {certificate.began_at:%Y-%m-%d %H:%M:%S %Z}",
    )
