"""A notice that the machine is being shut down, from systemd's logind, which waits for the drain.

At a shutdown systemd ends containers and agent at the same time. A delay lock holds that up, for as
long as logind.conf's InhibitDelayMaxSec allows. systemd's own tools speak D-Bus: one child says
when logind announces the shutdown, and another one holds the lock while it lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from agent.drain.notice import Notice, Tell
from agent.errors import AgentError
from agent.host.run import CommandFailed, describe_status, spawn
from agent.logs import get_logger

log = get_logger(__name__)

# From logind and from nobody else: any program may send signals of that name.
_MATCH: Final = (
    "type='signal',sender='org.freedesktop.login1',"
    "interface='org.freedesktop.login1.Manager',member='PrepareForShutdown'"
)
_MONITOR: Final = ("busctl", "--system", "monitor", "--json=short", f"--match={_MATCH}")
_LOCK: Final = (
    "systemd-inhibit", "--what=shutdown", "--mode=delay", "--who=checkpoint-agent",
    "--why=Pods are checkpointed first", "sleep", "infinity",
)  # fmt: skip

# Seconds until the lock is asked for again, when it was lost or refused.
_RETRY: Final = 60.0

# Seconds after which the lock counts as granted: one that is refused is so at once.
_GRANTED: Final = 1.0


class ShutdownSource:
    """Holds the lock until the pods are taken care of, and again when a shutdown is called off."""

    name = "shutdown"

    async def watch(self, tell: Tell) -> None:
        """See Source."""
        warned = False
        while True:
            try:
                async with spawn(_MONITOR, stderr=DEVNULL) as monitor:
                    await _listen(monitor, tell)
                problem = "the bus has gone"
            except AgentError as error:
                problem = str(error)
            if not warned:
                log.warning("a shutdown of the machine will not wait", reason=problem)
            warned = True
            await asyncio.sleep(_RETRY)


async def _listen(monitor: Process, tell: Tell) -> None:
    """To the monitor's end. Raises CommandFailed, MissingTool: the lock is not to be had."""
    assert monitor.stdout is not None  # noqa: S101 - it is a pipe
    async with contextlib.AsyncExitStack() as held:
        await held.enter_async_context(_lock())
        while line := await monitor.stdout.readline():
            begins = _announced(line)
            if begins is None:
                continue
            drained = tell(Notice("the machine is being shut down") if begins else None)
            if begins:
                await drained.wait()
                await held.aclose()
            else:
                await held.aclose()
                await held.enter_async_context(_lock())


@asynccontextmanager
async def _lock() -> AsyncIterator[None]:
    async with spawn(_LOCK, stdout=DEVNULL, stderr=DEVNULL) as child:
        with contextlib.suppress(TimeoutError):
            status = await asyncio.wait_for(child.wait(), _GRANTED)
            raise CommandFailed(_LOCK[0], describe_status(status), "the lock is refused")
        yield


def _announced(line: bytes) -> bool | None:
    """Whether a shutdown begins, or has been called off; None when a line says neither."""
    try:
        message = json.loads(line)
        (begins,) = message["payload"]["data"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return begins if isinstance(begins, bool) else None
