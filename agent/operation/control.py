"""Hears the launcher: hooks as CRIU reaches them, and the one that is held until the agent agrees.

Lines over a unix socket in the images directory; see agent/host/launcher/peers.py for the other
end.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType

from agent.host.launcher.peers import CONTROL_SOCKET, HELD_HOOK
from agent.host.sockets import listen
from agent.operation.attempt import ROLLBACK_TIMEOUT

# Called when CRIU has written everything and holds the tasks frozen. True lets it go on, False
# makes the dump fail and the tasks run on.
OnHeld = Callable[[], Coroutine[None, None, bool]]

# Called with the first task that CRIU dumps or has made, at each hook where it says which.
OnRoot = Callable[[int], None]

# Called with the name of each hook, while CRIU is in it.
OnHook = Callable[[str], None]


class Control:
    """The agent's end, for one operation."""

    def __init__(
        self,
        images_dir: Path,
        on_held: OnHeld | None = None,
        on_root: OnRoot | None = None,
        on_hook: OnHook | None = None,
    ) -> None:
        self.untranslatable: str | None = None
        self.hooks: dict[str, float] = {}
        self._images_dir, self._on_held = images_dir, on_held
        self._on_root, self._on_hook = on_root, on_hook
        self._server: asyncio.Server | None = None
        self._holding: asyncio.Task[bool] | None = None
        self._conversations: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Control:
        listener = listen(self._images_dir, CONTROL_SOCKET)
        try:
            self._server = await asyncio.start_unix_server(self._converse, sock=listener)
        except BaseException:
            listener.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for the launcher: it outlives a runc that was killed, and CRIU rolls back under it.

        After an error it is not allowed to go on.
        """
        if self._server is not None:
            self._server.close()
        if error is not None and self._holding is not None:
            self._holding.cancel()
        if self._conversations:
            _, unfinished = await asyncio.wait(self._conversations, timeout=ROLLBACK_TIMEOUT)
            for conversation in unfinished:
                conversation.cancel()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation = asyncio.current_task()
        assert conversation is not None  # noqa: S101 - a coroutine runs in a task
        self._conversations.add(conversation)
        try:
            # Given up is given up: asyncio would only complain of the cancelled task.
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                while line := (await reader.readline()).decode().strip():
                    await self._hear(line, writer)
        finally:
            self._conversations.discard(conversation)
            writer.close()

    async def _hear(self, line: str, writer: asyncio.StreamWriter) -> None:
        word, _, rest = line.partition(" ")
        if word == "fallback":
            self.untranslatable = rest
            # Only now does the launcher fail: who sees that, finds the reason here.
            writer.write(b"ok\n")
        elif word == "hook":
            name, _, pid = rest.partition(" ")
            if self._on_root is not None and int(pid or 0):
                self._on_root(int(pid))
            await self._hook(name, writer)

    async def _hook(self, name: str, writer: asyncio.StreamWriter) -> None:
        self.hooks[name] = time.monotonic()
        if self._on_hook is not None:
            self._on_hook(name)
        if name == HELD_HOOK and self._on_held is not None:
            self._holding = asyncio.ensure_future(self._on_held())
            await asyncio.wait({self._holding})
            agreed = not self._holding.cancelled() and self._holding.result()
            writer.write(b"ok\n" if agreed else b"no\n")
            await writer.drain()
