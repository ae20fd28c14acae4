"""Somebody who knows when a node goes: a test."""

from __future__ import annotations

import asyncio

from agent.drain import Notice, Tell


class Somebody:
    """A source that says what a test says."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.heard = asyncio.Event()
        self._tell: Tell | None = None

    async def watch(self, tell: Tell) -> None:
        """See Source."""
        self._tell = tell
        self.heard.set()
        await asyncio.Event().wait()

    def say(self, notice: Notice | None) -> asyncio.Event:
        """The node goes, or does not; the answer is set when it is drained."""
        assert self._tell is not None
        return self._tell(notice)
