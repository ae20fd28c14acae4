"""Those who watch an action. Whoever reads slowly misses progress, never a change of state."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager

from agent.errors import ShuttingDown
from agent.messages.model import Event


class Watcher:
    """One who watches one action."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._something = asyncio.Event()
        self._over = False

    def tell(self, event: Event) -> None:
        """Progress replaces progress that was not read: no more waits than there are states."""
        if event.progress is not None and self._events and self._events[-1].progress is not None:
            self._events.pop()
        self._events.append(event)
        self._something.set()

    def end(self) -> None:
        """Nothing more will come."""
        self._over = True
        self._something.set()

    async def next(self) -> Event:
        """The next event. Raises ShuttingDown when the agent stops first."""
        while not self._events:
            if self._over:
                raise ShuttingDown
            self._something.clear()
            await self._something.wait()
        return self._events.popleft()


class Watchers:
    """All of them, by action."""

    def __init__(self) -> None:
        self._watchers: defaultdict[str, set[Watcher]] = defaultdict(set)
        self._over = False

    def tell(self, event: Event) -> None:
        """Everybody who watches this action."""
        for watcher in self._watchers.get(event.action_id, ()):
            watcher.tell(event)

    def end(self) -> None:
        """The agent stops."""
        self._over = True
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.end()

    @contextmanager
    def watching(self, action_id: str) -> Iterator[Watcher]:
        """Hears every event of an action while the block lasts."""
        watcher = Watcher()
        if self._over:
            watcher.end()
        self._watchers[action_id].add(watcher)
        try:
            yield watcher
        finally:
            self._watchers[action_id].discard(watcher)
            if not self._watchers[action_id]:
                del self._watchers[action_id]
