"""Pods that an earlier agent was in the middle of: their actions go on, or end."""

from __future__ import annotations

import asyncio
from typing import Final

from agent.actions import retry
from agent.errors import (
    AgentError,
    CheckpointCorrupt,
    CheckpointNotFound,
    FormatTooNew,
    InvalidArgument,
    RestoreFailed,
)
from agent.logs import get_logger
from agent.runtime.lookups import Lookups
from agent.runtime.report import Reporter
from agent.runtime.sandboxes import Sandbox, Sandboxes
from agent.runtime.source import Sources
from agent.runtime.verdicts import Verdicts

log = get_logger(__name__)

# What another try would not change.
_FINAL: Final = (CheckpointCorrupt, CheckpointNotFound, FormatTooNew, InvalidArgument)


class Resuming:
    """Tells whoever waits for the action of a pod, as soon as its checkpoint can be read.

    The pod's next container may come first, and tells the same.
    """

    def __init__(
        self,
        sandboxes: Sandboxes,
        sources: Sources,
        lookups: Lookups,
        verdicts: Verdicts,
        reporter: Reporter,
    ) -> None:
        self._sandboxes, self._sources, self._lookups = sandboxes, sources, lookups
        self._verdicts, self._reporter = verdicts, reporter

    async def run(self) -> None:
        """All at once: one whose store hangs holds up no other."""
        await asyncio.gather(*(self._resume(sandbox) for sandbox in self._sandboxes.known()))

    async def _resume(self, sandbox: Sandbox) -> None:
        try:
            if sandbox.decision.path is None or not await self._reporter.is_open(sandbox):
                return
            if sandbox.decision.cold is not None:
                await self._verdicts.tell_cold(sandbox, sandbox.decision.cold)
                return
            await self._take_up(sandbox, sandbox.decision.path)
        except Exception as error:
            log.exception("a defect", pod=str(sandbox.pod))
            failure = RestoreFailed(str(sandbox.pod), f"a defect of the agent: {error!r}")
            await self._reporter.fell_back(sandbox, failure)

    async def _take_up(self, sandbox: Sandbox, path: str) -> None:
        delay = retry.FIRST
        while not sandbox.told and await self._reporter.is_open(sandbox):
            try:
                find, namespace = self._sources.find, sandbox.pod.namespace
                source = await self._lookups.in_store(find, path, namespace)
            except _FINAL as error:
                await self._reporter.fell_back(sandbox, error)
                return
            except AgentError as error:
                reason = str(error)
                log.warning("cannot be read yet", pod=str(sandbox.pod), path=path, reason=reason)
                delay = await retry.pause(delay)
                continue
            async with sandbox.lock:
                if not sandbox.told:
                    sandbox.told = True
                    await self._reporter.began(sandbox, source.manifest)
