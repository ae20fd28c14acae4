"""The pipe to one helper process, and who waits for which of its answers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.host.run import spawn


class HelperGone(Exception):
    """It ended, or was given up, before it answered."""


class Channel:
    """One helper that runs. After a fault it takes nothing new, and ends when it owes nothing."""

    def __init__(self, process: Process, stack: contextlib.AsyncExitStack) -> None:
        self.is_initialised = self.is_faulty = False
        self._process, self._stack = process, stack
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._listening = asyncio.create_task(self._listen())
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, libraries: Path | None) -> Channel:
        """Start a helper; ``libraries`` is where the driver's are, if they have to be looked for.

        Raises:
            MissingTool
        """
        stack = contextlib.AsyncExitStack()
        # -I: nothing of the environment or of the working directory is imported.
        words: list[str | Path] = [sys.executable, "-I", "-m", "agent.host.cuda.helper"]
        if libraries is not None:
            words.append(libraries)
        process = await stack.enter_async_context(
            spawn(words, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
        )
        return cls(process, stack)

    async def ask(self, call: str, seconds: float, arguments: Mapping[str, object]) -> Any:  # noqa: ANN401 - JSON
        """What the call returns.

        Raises:
            ValueError: it failed; with the driver's word for why.
            TimeoutError: it did not answer in that time. It may still do what it was asked.
            HelperGone
        """
        if self.is_faulty or self._process.stdin is None:
            raise HelperGone("its helper process has ended")
        number = next(self._numbers)
        answered = self._waiting[number] = asyncio.get_running_loop().create_future()
        line = json.dumps({"id": number, "call": call, **arguments}) + "\n"
        try:
            # A few bytes into an empty pipe. When nobody reads them any more, _listen notices.
            self._process.stdin.write(line.encode())
            async with asyncio.timeout(seconds):
                return await answered
        except TimeoutError:
            self.is_faulty = True
            raise
        finally:
            del self._waiting[number]
            self._end_when_idle()

    def retire(self) -> None:
        """Take nothing new, and end when nothing is owed any more."""
        self.is_faulty = True
        self._end_when_idle()

    async def close(self) -> None:
        """End it now, whatever it is at."""
        self.is_faulty = True
        self._begin_close()
        if self._closing is not None:
            await self._closing

    def _end_when_idle(self) -> None:
        """After a fault, when nobody waits for it any more."""
        if self.is_faulty and not self._waiting:
            self._begin_close()

    def _begin_close(self) -> None:
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())

    async def _close(self) -> None:
        # Its input ends, and so does it; one that hangs in the driver is killed.
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._stack.aclose()
        await self._listening

    async def _listen(self) -> None:
        """Hand out answers until there are no more."""
        output = self._process.stdout
        # A line that its death has cut off is no JSON, and one that is too long no answer.
        with contextlib.suppress(ValueError):
            while output is not None and (line := await output.readline()):
                self._hand_out(json.loads(line))
        self.is_faulty = True
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(HelperGone("its helper process died of it"))
        # Nobody may be asking, and nobody will any more.
        self._end_when_idle()

    def _hand_out(self, answer: dict[str, Any]) -> None:
        waiting = self._waiting.get(answer["id"])
        if waiting is None or waiting.done():
            return
        if "error" in answer:
            waiting.set_exception(ValueError(answer["error"]))
        else:
            waiting.set_result(answer["value"])
