"""Publishes registrations and reports for each whether the broker has acknowledged it."""

import base64
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from confluent_kafka import KafkaError

from producers.submit.entries import Entry
from runtime.photo_roots import allow, root_of
from runtime.servers.publisher import Publisher
from runtime.telemetry.tracing import traced, tracer_of
from schemas.envelope import Message, Source, announce, encode
from schemas.events.base import Event
from schemas.events.registrations import IndividualCreated, Photo
from schemas.settings import Settings


@dataclass(slots=True)
class SubmitReport:
    """How many registrations are acknowledged, and the name and reason of each that is not."""

    acknowledged: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)


def submit(
    settings: Settings,
    entries: Iterable[Entry],
    inline: bool = False,
    give_up_after_s: float = 60.0,
    on_progress: Callable[[], None] = lambda: None,
) -> SubmitReport:
    """Publish entries; returns once each is acknowledged or has failed.

    `inline` puts the photos into the events. The URIs' roots are added to those that the encoder may read.
    """
    publisher, tracer = Publisher(settings, "submit", give_up_after_s), tracer_of(settings, "submit")
    report = SubmitReport()
    allowed: set[str] = set()
    pending = 0

    def settled(name: str, problem: str | None) -> None:
        nonlocal pending
        pending -= 1
        if problem is None:
            report.acknowledged += 1
        else:
            report.failed.append((name, problem))
        on_progress()

    def callback(name: str, message: Message[Event]) -> Callable[[KafkaError | None], None]:
        begun = time.time_ns()

        def delivered(error: KafkaError | None) -> None:
            settled(name, _explain(error, give_up_after_s) if error else None)
            if tracer is not None and error is None:
                tracer.stage("submit", message, begun, time.time_ns(), is_producer=True)

        return delivered

    for entry in entries:
        pending += 1
        try:
            registration = _with_photo(settings, entry, inline)
        except (ValueError, OSError) as error:
            settled(entry.name, str(error))
            continue
        if registration.photo.uri is not None:
            root = root_of(registration.photo.uri)
            if root not in allowed:
                allow(settings.data_folder, {root})
                allowed.add(root)
        message = traced(announce(registration, Source.SUBMIT))
        publisher.publish(encode(message), callback(entry.name, message))
        publisher.poll()
    while pending:
        publisher.poll(0.1)
    return report


def _explain(error: KafkaError, give_up_after_s: float) -> str:
    if error.code() == KafkaError._MSG_TIMED_OUT:
        return f"Kafka did not acknowledge it within {give_up_after_s:.0f} s"
    return error.str()


def _with_photo(settings: Settings, entry: Entry, inline: bool) -> IndividualCreated:
    registration = entry.registration
    if registration is None:
        raise ValueError(entry.problem)
    if not inline:
        return registration
    uri = registration.photo.uri
    if uri is None or urlsplit(uri).scheme != "file":
        raise ValueError("only photos on this machine can be sent inline")
    path = Path(unquote(urlsplit(uri).path))
    size = path.stat().st_size
    if size > settings.inline_photo_bytes:
        raise ValueError(
            f"{size} bytes are too many to send inline; at most {settings.inline_photo_bytes}: submit it by its URI"
        )
    photo = Photo(inline=base64.b64encode(path.read_bytes()).decode())
    return registration.model_copy(update={"photo": photo})
