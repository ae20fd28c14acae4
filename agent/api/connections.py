"""Connections that say nothing, or half of something, do not stay; and there are not too many."""

from __future__ import annotations

import asyncio
import resource
from typing import ClassVar, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

from agent.logs import get_logger

log = get_logger(__name__)

# Descriptors that are no connection of a client: database, broker, cluster, files.
_SPARED: Final = 100
# Seconds between two lines about connections that were closed because there are too many.
_SILENCE: Final = 60.0


class Connection(H11Protocol):
    """uvicorn's, that waits for a request and not for ever.

    uvicorn begins to count with its first answer, and ends that with the first byte that comes: who
    sends nothing, or half a head, would stay, and so would who goes on with a body for ever that
    was answered long ago. While a request is worked on, time is the application's.
    """

    # Until the head of a request is complete, from the beginning or its first byte on.
    head_seconds: ClassVar[float] = 30.0

    _complained: ClassVar[float] = -_SILENCE
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As asyncio has it."""
        super().connection_made(transport)
        if len(self.connections) > most_connections():
            self._complain()
            transport.abort()
            return
        self._wait()

    def data_received(self, data: bytes) -> None:
        """As asyncio has it."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._wait()
        else:
            self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio has it."""
        super().connection_lost(exc)
        self._go_on()

    def _wait(self) -> None:
        """Begin to count, unless that is done already."""
        if self._waiting is None and not self.transport.is_closing():
            self._waiting = self.loop.call_later(self.head_seconds, self.transport.close)

    def _go_on(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _complain(self) -> None:
        if self.loop.time() - Connection._complained >= _SILENCE:
            Connection._complained = self.loop.time()
            log.warning("too many connections; new ones are closed", most=most_connections())


def most_connections() -> int:
    """How many clients may be connected: whoever comes then takes no descriptor from the rest."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, limit - _SPARED)
