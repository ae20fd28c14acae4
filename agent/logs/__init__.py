"""What the daemon says: structured lines on standard error, each with the action it is about.

structlog is loaded for the first line that is written. It brings what renders tracebacks in colour,
a sixth of all the modules that a checkpoint from the command line takes, and there most runs say
nothing.
"""

from __future__ import annotations

import logging
import re
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger

# scheme://user:password@ of a URL, and the tokens that NATS takes in the same place; up to the last
# @, as there are passwords with one. It begins with what is rare: looking for a scheme everywhere
# takes minutes in a line of a megabyte.
_USERINFO = re.compile(r"(://)[^/\s\"']+@")


def get_logger(name: str) -> BoundLogger:
    """The logger of a module; ``log.info("what happened", key=value)``."""
    return cast("BoundLogger", _Logger(name))


class _Logger:
    """A logger of structlog's, made when it is first asked for something."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, method: str) -> Any:  # noqa: ANN401 - whatever structlog has there
        try:
            from agent.logs.lines import logger
        except (ImportError, MemoryError, OSError):
            # No descriptor is left, for one. Who thaws or undoes must not fail for a line's sake.
            return self._plain
        return getattr(logger(self._name), method)

    def _plain(self, event: str, *_: object, **values: object) -> None:
        logging.getLogger(self._name).error("%s", redacted(f"{event} {values}"))


def about(**values: object) -> AbstractContextManager[Any]:
    """Lines from within the block, and from tasks started there, carry these keys."""
    from structlog.contextvars import bound_contextvars

    return bound_contextvars(**values)


def redacted(text: str) -> str:
    """``text`` without users and passwords of the URLs in it."""
    return _USERINFO.sub(r"\1***@", text)
