"""How the agent learns that its node goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Notice:
    """The node goes. ``seconds`` are those that are left, None where nobody says."""

    reason: str
    seconds: float | None = None


# Called in the event loop's thread with a notice, as often as one likes, and with None when it does
# not hold any more. The event is set when the node's pods are taken care of.
Tell = Callable[[Notice | None], asyncio.Event]


class Source(Protocol):
    """One who may know. ``name`` is a word for logs."""

    @property
    def name(self) -> str:
        """What it is called."""

    async def watch(self, tell: Tell) -> None:
        """Tell of notices for ever; its own troubles are its own to log and to outlive."""
