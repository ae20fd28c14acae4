"""Whose turn it is: so many at a time, first come first served, never two at one target.

Who waits for a busy target is overtaken by those who do not, but not by later ones for the same
target.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turn:
    """One who is working."""

    def __init__(self, turns: Turns, keys: frozenset[str]) -> None:
        self.keys = keys
        self._turns = turns
        self._has_slot = True

    def give_slot_back(self) -> None:
        """Let others begin, but nobody at the same target; may be called again."""
        if self._has_slot:
            self._has_slot = False
            self._turns.slot_is_free()


class Turns:
    """``limit`` slots, and who waits for one."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._busy: set[str] = set()
        # In order of coming; a dictionary, because any of them may give up.
        self._waiting: dict[asyncio.Future[None], frozenset[str]] = {}

    @asynccontextmanager
    async def turn(self, keys: frozenset[str]) -> AsyncIterator[Turn]:
        """Wait for a slot and for all ``keys``, which name what will be worked on."""
        await self._wait(keys)
        turn = Turn(self, keys)
        try:
            yield turn
        finally:
            self._busy -= keys
            turn.give_slot_back()
            self._admit()

    def slot_is_free(self) -> None:
        """Somebody has given one back."""
        self._free += 1
        self._admit()

    async def _wait(self, keys: frozenset[str]) -> None:
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[mine] = keys
        self._admit()
        try:
            await mine
        except asyncio.CancelledError:
            if self._waiting.pop(mine, None) is None:
                # It was called up and cancelled in the same moment.
                self._busy -= keys
                self._free += 1
            self._admit()
            raise

    def _admit(self) -> None:
        """Call up everybody whose turn it is."""
        spoken_for = set(self._busy)
        for waiting, keys in list(self._waiting.items()):
            if not self._free:
                break
            if spoken_for.isdisjoint(keys) and not waiting.done():
                del self._waiting[waiting]
                self._busy |= keys
                self._free -= 1
                waiting.set_result(None)
            spoken_for |= keys
