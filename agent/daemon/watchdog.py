"""What systemd is told: that the daemon is ready, that it lives, that it stops. (sd_notify(3))

Without NOTIFY_SOCKET in the environment nobody asks, and nothing is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Mapping

from agent.errors import AgentError
from agent.logs import get_logger

log = get_logger(__name__)


class Notifier:
    """The way to the service manager."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        # An abstract one begins with a zero, which no environment variable can contain.
        self._address = "\0" + path[1:] if path.startswith("@") else path

    def ready(self, status: str) -> None:
        """Everything that others may ask for answers now."""
        self._send(f"READY=1\nSTATUS={status}")

    def stopping(self) -> None:
        """No new work is taken."""
        self._send("STOPPING=1\nSTATUS=stopping")

    def alive(self) -> None:
        """The watchdog's answer."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto(message.encode(), self._address)
        except OSError as error:
            # A manager that listens no more has no use for the daemon's failing over it.
            log.warning("the service manager was not told", reason=error.strerror)


def watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    """How long systemd waits for a sign of life from this process, None when it does not."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        return int(environ["WATCHDOG_USEC"]) / 1e6
    except (KeyError, ValueError):
        return None


async def heartbeat(
    notifier: Notifier, seconds: float, probe: Callable[[], Awaitable[object]]
) -> None:
    """Answer the watchdog at half its time for as long as ``probe`` answers; never returns.

    The probe goes through what must not hang: a loop that is stuck does not come here, and a probe
    that is stuck leaves the watchdog without its answer. One that fails (the disk is full) has
    answered, and a new start would help nobody.
    """
    interval = seconds / 2
    while True:
        try:
            async with asyncio.timeout(interval):
                with contextlib.suppress(AgentError):
                    await probe()
        except TimeoutError:
            log.error("the executor does not answer: the watchdog gets no answer either")
        else:
            notifier.alive()
        await asyncio.sleep(interval)
