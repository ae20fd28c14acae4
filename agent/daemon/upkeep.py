"""What the daemon does to pods without being asked: heartbeats, and drains of a node that goes."""

from __future__ import annotations

import asyncio
import os

from agent.actions import Executor
from agent.cluster.node import NodeSource
from agent.daemon.eternal import EternalTasks
from agent.drain import Drainer, Source, sources
from agent.heartbeat import Heartbeats
from agent.metrics import Metrics
from agent.settings import Settings


class Upkeep:
    """Both of them; neither begins anything before :meth:`start`."""

    def __init__(self, settings: Settings, executor: Executor, metrics: Metrics) -> None:
        self._settings = settings
        self._drainer = Drainer(settings, executor, metrics, _sources(settings))
        self._heartbeats = Heartbeats(
            settings, executor, metrics, paused=lambda: self._drainer.draining
        )

    def start(self, tasks: EternalTasks) -> None:
        """From now on pods are looked after."""
        tasks.start("drain", self._drainer.run())
        if self._settings.heartbeat.enabled:
            tasks.start("heartbeats", self._heartbeats.run())

    async def finish(self, hurried: asyncio.Event) -> None:
        """The daemon was told to stop: drain, where that means that the node goes.

        Args:
            hurried: ends the drain; what it has begun is rolled back with all other actions.
        """
        if not self._settings.drain.on_stop:
            return
        draining = asyncio.ensure_future(self._drainer.finish())
        hurrying = asyncio.ensure_future(hurried.wait())
        await asyncio.wait({draining, hurrying}, return_when=asyncio.FIRST_COMPLETED)
        hurrying.cancel()
        if not draining.done():
            draining.cancel()
            await asyncio.wait({draining})
            return
        await draining


def _sources(settings: Settings) -> list[Source]:
    found = sources(settings.drain)
    if settings.cluster.is_configured and settings.drain.cordon:
        found.append(NodeSource(settings.cluster, os.environ, settings.drain.node))
    return found
