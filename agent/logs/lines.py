"""How lines are made and where they go: structlog for our own, logging for those of libraries.

Both take the same way out, and no URL leaves with the user and password it may contain.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal, TextIO

import structlog
from structlog.types import Processor

from agent.logs import redacted

# Of these only complaints are of interest: they tell of every frame, connection and value of a
# database otherwise, and of pods with what is in their environment.
_TALKATIVE = ("aiohttp", "aiosqlite", "asyncio", "kubernetes_asyncio", "nats", "grpc", "hpack")

_SHARED: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
)

# Also where set_up is never called (the command line): structlog's own default writes to standard
# output, which belongs to results.
structlog.configure(
    processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
    cache_logger_on_first_use=True,
)


@functools.cache
def logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a module, one for each name."""
    return structlog.stdlib.get_logger(name)


def set_up(
    level: Literal["debug", "info", "warning", "error"],
    form: Literal["auto", "json", "console"],
    stream: TextIO | None = None,
) -> None:
    """Send all lines from ``level`` on to ``stream`` (standard error), replacing other handlers.

    Args:
        form: ``auto`` is console on a terminal and JSON lines elsewhere.
    """
    out = stream or sys.stderr
    as_json = form == "json" or (form == "auto" and not out.isatty())
    handler = logging.StreamHandler(out)
    handler.setFormatter(_Redacting(_renderers(as_json, colours=out.isatty())))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(root.level, logging.WARNING))
    logging.captureWarnings(True)


def _renderers(as_json: bool, *, colours: bool) -> list[Processor]:
    first: Processor = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if as_json:
        return [
            first,
            structlog.processors.format_exc_info,
            _in_order,
            structlog.processors.JSONRenderer(default=str),
        ]
    return [first, structlog.dev.ConsoleRenderer(colors=colours, timestamp_key="time")]


def _in_order(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """What a reader looks for first comes first."""
    first = ("time", "level", "event", "action_id", "logger")
    return {key: event[key] for key in first if key in event} | {
        key: value for key, value in event.items() if key not in first
    }


class _Redacting(structlog.stdlib.ProcessorFormatter):
    """The last to see a line: whatever key or traceback a URL is in, it is seen here."""

    def __init__(self, processors: list[Processor]) -> None:
        super().__init__(processors=processors, foreign_pre_chain=_SHARED)

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))
