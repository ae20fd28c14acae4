"""Events on their way to the broker, as the publisher sees them: oldest first, until confirmed."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable

from agent.actions.bookkeeper import Bookkeeper
from agent.actions.rows import OutboxRow


class Outbox:
    """What of the journal still has to be published. All of it is durable.

    Attributes:
        changed: set whenever something was put in. The publisher clears it before it asks for the
            next rows.
    """

    def __init__(self, bookkeeper: Bookkeeper) -> None:
        self.changed = asyncio.Event()
        self._bookkeeper = bookkeeper
        self._waiting: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)

    async def next(self, limit: int = 100) -> list[OutboxRow]:
        """The oldest events that are not confirmed, in the order in which they happened."""
        return await self._bookkeeper.look(lambda book: book.outbox_next(limit))

    async def confirm(self, ids: Iterable[int]) -> None:
        """The broker has these. Ids that are gone are no error: progress is replaced at any time.

        Waits for no disk: what a power loss brings back is published again under the same id.

        Raises:
            StoreFailed: they are still there, and will be published again.
        """
        given = list(ids)
        for action_id in await self._bookkeeper.look(lambda book: book.outbox_confirm(given)):
            for waiting in self._waiting.pop(action_id, ()):
                if not waiting.done():
                    waiting.set_result(None)

    async def depth(self) -> int:
        """How many events wait."""
        return await self._bookkeeper.look(lambda book: book.outbox_depth())

    async def published(self, action_id: str) -> None:
        """Wait until every event of an action so far is confirmed."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Before the look at the book: what is confirmed in between is noticed.
        self._waiting[action_id].add(waiting)
        try:
            if await self._bookkeeper.look(lambda book: book.unsent(action_id)):
                await waiting
        finally:
            self._waiting[action_id].discard(waiting)
            if not self._waiting[action_id]:
                del self._waiting[action_id]
