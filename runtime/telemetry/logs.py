"""The log of every process: events with named fields, as lines for people on a terminal and as JSON elsewhere.

Lines of libraries take the same way as our own, and nothing of a photo or an embedding passes: see
`runtime.telemetry.redaction`. Our own are written through `structlog.stdlib.get_logger`.
"""

import logging
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import TracebackType

import structlog
from structlog.contextvars import merge_contextvars
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.processors import ExceptionRenderer, JSONRenderer, StackInfoRenderer, TimeStamper, format_exc_info
from structlog.stdlib import ProcessorFormatter, add_log_level, add_logger_name, filter_by_level
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor, WrappedLogger

from runtime.telemetry.redaction import LONGEST_TRACEBACK, redacted, redacted_text
from schemas.settings import LogFormat

_OURS = ("schemas", "runtime", "producers", "consumers", "streams", "deploy")
_NOISY = ("faust", "arroyo", "mode", "alembic", "opentelemetry")
_CLIENTS = ("aiokafka", "librdkafka")  # dozens of lines a second while a broker is away
_FIRST = ("timestamp", "level", "event", "worker", "namespace")
_FRAMES = 20


@dataclass(frozen=True, slots=True)
class LogStyle:
    """How a process logs. `fields` stand in every JSON line."""

    chosen: LogFormat | None = None
    is_worker: bool = False
    verbose: bool = False
    fields: dict[str, str] = field(default_factory=dict)

    @property
    def format(self) -> LogFormat:
        """What is chosen; else JSON for workers that nobody looks at, and text."""
        return self.chosen or (format_of_workers() if self.is_worker else "text")


_current: LogStyle | None = None


class _StandardError(logging.Handler):
    """Writes to whatever standard error is at the moment."""

    def __init__(self, lines: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(lines)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:  # noqa: BLE001 - logging stops nobody; the standard library's way would print the record
            with suppress(Exception):
                sys.stderr.write(f"a log line of {record.name} could not be written\n")


def configure(log: LogStyle) -> None:
    """Log to standard error from now on: of workers their progress, else warnings; `verbose`: each individual."""
    global _current  # noqa: PLW0603 - of this process, as all of Python's logging is
    _current = log
    through_stdlib()
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, _StandardError)]
    root.addHandler(_StandardError(formatter(log)))
    root.setLevel(logging.INFO if log.verbose or log.is_worker else logging.WARNING)
    for names, quiet in ((_NOISY, logging.ERROR), (_CLIENTS, logging.CRITICAL)):
        for name in names:
            logging.getLogger(name).setLevel(logging.INFO if log.verbose else quiet)
    for name in _OURS:
        logging.getLogger(name).setLevel(logging.DEBUG if log.verbose else logging.NOTSET)
    if log.is_worker:
        logging.captureWarnings(True)
        if log.format == "json":  # on a terminal, typer's are easier to read
            sys.excepthook = _crashed
            threading.excepthook = _thread_crashed


def format_of_workers() -> LogFormat:
    """The format of workers that write to where this process writes, unless another is chosen."""
    return (_current.chosen if _current else None) or ("text" if sys.stderr.isatty() else "json")


def become_worker(worker: str, namespace: str) -> None:
    """Log as a worker of that name from now on."""
    configure(replace(_current or LogStyle(), is_worker=True, fields={"worker": worker, "namespace": namespace}))


def current() -> LogStyle | None:
    """How this process logs, to be handed to those that it starts."""
    return _current


def through_stdlib() -> None:
    """Have our loggers hand their events to those of the standard library."""
    structlog.configure(
        processors=[
            filter_by_level,
            merge_contextvars,
            add_logger_name,
            add_log_level,
            TimeStamper(fmt="iso"),
            ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def formatter(log: LogStyle) -> logging.Formatter:
    """The formatter of records, of ours and of libraries. Tracebacks come without the values of variables."""

    def with_fields(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
        return {**log.fields, **event}

    if log.format == "text":
        rendering: Sequence[Processor] = (
            format_exc_info,
            _redact,
            ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain_traceback, sort_keys=False),
        )
    else:
        frames = ExceptionRenderer(ExceptionDictTransformer(show_locals=False, max_frames=_FRAMES))
        rendering = (with_fields, frames, _redact, JSONRenderer())
    return ProcessorFormatter(
        foreign_pre_chain=[merge_contextvars, add_logger_name, add_log_level, TimeStamper(fmt="iso")],
        processors=[ProcessorFormatter.remove_processors_meta, StackInfoRenderer(), *rendering],
    )


def _redact(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    """The second wall; and the fields that people look for first come first."""
    shown: EventDict = {name: redacted(event.pop(name)) for name in _FIRST if name in event}
    for name, value in event.items():
        is_traceback = name == "exception" and isinstance(value, str)
        shown[name] = redacted_text(value, LONGEST_TRACEBACK) if is_traceback else redacted(value)
    return shown


def _crashed(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    structlog.stdlib.get_logger("facematch").critical("crashed", exc_info=(kind, error, traceback))


def _thread_crashed(what: threading.ExceptHookArgs) -> None:
    if what.exc_value is not None:
        _crashed(what.exc_type, what.exc_value, what.exc_traceback)
