"""How often and how much: buckets of tokens, as in every network, and a limit of bodies."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from starlette.types import Message, Receive

from agent.api.errors import TooBig, TooFast, TooSlow

# Callers that are remembered: some 2 MB. Who asked longest ago is forgotten first.
_REMEMBERED: Final = 10_000

# Seconds for a body: two megabytes come in that time at 70 kB/s.
BODY_SECONDS: Final = 30.0


class Rates:
    """Lets each caller ask ``per_second`` times, and ``burst`` times at once.

    Args:
        clock: seconds; tests bring their own.
    """

    def __init__(
        self, per_second: float, burst: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second, self._burst, self._clock = per_second, max(1.0, burst), clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def ask(self, caller: str) -> None:
        """Count one request. Raises TooFast if it is one too many."""
        left = self._left(caller) - 1
        if left < 0:
            raise TooFast(-left / self._per_second)
        self._keep(caller, left)

    def _left(self, caller: str) -> float:
        left, then = self._buckets.get(caller, (self._burst, self._clock()))
        return min(self._burst, left + (self._clock() - then) * self._per_second)

    def _keep(self, caller: str, left: float) -> None:
        self._buckets[caller] = (left, self._clock())
        self._buckets.move_to_end(caller)
        if len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)


def limited(receive: Receive, limit: int, seconds: float = BODY_SECONDS) -> Receive:
    """``receive``, for bodies of at most ``limit`` bytes that come within ``seconds``.

    It raises TooBig and TooSlow for others.
    """
    got, is_whole = 0, False
    until = asyncio.get_running_loop().time() + seconds

    async def receiving() -> Message:
        nonlocal got, is_whole
        try:
            # Behind the body there is only the client's going away, and that may take hours.
            async with asyncio.timeout_at(None if is_whole else until):
                message = await receive()
        except TimeoutError:
            raise TooSlow(seconds) from None
        if message["type"] == "http.request":
            got += len(message.get("body", b""))
            if got > limit:
                raise TooBig(limit)
            is_whole = not message.get("more_body", False)
        return message

    return receiving
