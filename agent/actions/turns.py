"""Whose turn it is: so many at a time, first come first served, never two at one target.

Who waits for a busy target is overtaken by those who do not, but not by later ones for the same
target. Who only watches what others do needs no slot, but its target to itself. What is urgent
comes before everything that waits and is not. Who has only to store yet goes on without its slot,
as long as not too many do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

# For each slot so many may go on without theirs. Each that stores keeps up to 200 MiB of buffers
# and what its store's writers hold: with two slots the daemon has at most ten of them.
ASIDE_PER_SLOT = 4


class _Claim(NamedTuple):
    """What somebody waits for."""

    keys: frozenset[str]
    slot: bool
    urgent: bool


class Turn:
    """One who is working."""

    def __init__(self, turns: Turns, keys: frozenset[str], *, has_slot: bool) -> None:
        self.keys = keys
        self.has_slot = has_slot
        self._turns = turns

    def give_slot_back(self) -> None:
        """Let others begin, but nobody at the same target; may be called again.

        Where too many have done so already, when one of them ends.
        """
        if self.has_slot:
            self._turns.step_aside(self)


class Turns:
    """``limit`` slots, and who waits for one."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._room_aside = ASIDE_PER_SLOT * limit
        self._aside: set[Turn] = set()
        # In order of asking.
        self._to_step_aside: dict[Turn, None] = {}
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
            self._free += turn.has_slot
            self._aside.discard(turn)
            self._to_step_aside.pop(turn, None)
            self._let_step_aside()
            self._admit()

    def step_aside(self, turn: Turn) -> None:
        """It goes on without its slot as soon as there is room for that."""
        self._to_step_aside[turn] = None
        self._let_step_aside()
        self._admit()

    def _let_step_aside(self) -> None:
        while self._to_step_aside and len(self._aside) < self._room_aside:
            turn = next(iter(self._to_step_aside))
            del self._to_step_aside[turn]
            turn.has_slot = False
            self._aside.add(turn)
            self._free += 1

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
