"""Whose turn it is: so many at a time, first come first served, never two at one target.

Who waits for a busy target is overtaken by those who do not, but not by later ones for the same
target. Who only watches what others do needs no slot, but its target to itself. What is urgent
comes before everything that waits and is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple


class _Claim(NamedTuple):
    """What somebody waits for."""

    keys: frozenset[str]
    slot: bool
    urgent: bool


class Turn:
    """One who is working."""

    def __init__(self, turns: Turns, keys: frozenset[str], *, has_slot: bool) -> None:
        self.keys = keys
        self._turns = turns
        self._has_slot = has_slot

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
        self._waiting: dict[asyncio.Future[None], _Claim] = {}

    @property
    def has_room(self) -> bool:
        """Whether a slot is free."""
        return self._free > 0

    @asynccontextmanager
    async def turn(
        self, keys: frozenset[str], *, slot: bool = True, urgent: bool = False
    ) -> AsyncIterator[Turn]:
        """Wait for all ``keys``, which name what will be worked on, and for a slot if need be."""
        claim = _Claim(keys, slot, urgent)
        await self._wait(claim)
        turn = Turn(self, keys, has_slot=slot)
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

    async def _wait(self, claim: _Claim) -> None:
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[mine] = claim
        if claim.urgent:
            order = sorted(self._waiting.items(), key=lambda each: not each[1].urgent)
            self._waiting = dict(order)
        self._admit()
        try:
            await mine
        except asyncio.CancelledError:
            if self._waiting.pop(mine, None) is None:
                # It was called up and cancelled in the same moment.
                self._busy -= claim.keys
                self._free += claim.slot
            self._admit()
            raise

    def _admit(self) -> None:
        """Call up everybody whose turn it is."""
        spoken_for = set(self._busy)
        for waiting, claim in list(self._waiting.items()):
            has_room = self._free > 0 or not claim.slot
            if has_room and spoken_for.isdisjoint(claim.keys) and not waiting.done():
                del self._waiting[waiting]
                self._busy |= claim.keys
                self._free -= claim.slot
                waiting.set_result(None)
            spoken_for |= claim.keys
