"""Listens for ``checkpoint-runc``, and answers each of them by what is left of its time."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from pathlib import Path

from agent.config import Tools
from agent.errors import AgentError, AlreadyExists, InvalidArgument
from agent.host.cuda import Cuda
from agent.host.sockets import listen
from agent.logs import get_logger
from agent.runtime.answers import Answers
from agent.runtime.begun import Begun
from agent.runtime.conversation import Conversation, HungUp, creation_from
from agent.runtime.report import Reporter
from agent.runtime.sandboxes import Sandboxes
from agent.settings import Settings

log = get_logger(__name__)

# Seconds for the first line, which is sent at once.
_FIRST_SECONDS = 10.0

# A node has 110 pods by default; of those that start together each container comes alone.
_BACKLOG = 128


class RestoreServer:
    """The socket of [restore], and all that goes on over it."""

    def __init__(
        self, settings: Settings, path: Path, tools: Tools, cuda: Cuda, reporter: Reporter
    ) -> None:
        self._path = path
        begun = Begun(settings.state_dir / "begun")
        sandboxes = Sandboxes(self._path.parent / "restores", settings.restore.fallback, begun)
        self._sandboxes = sandboxes
        self._answers = Answers(settings, tools, cuda, sandboxes, reporter)
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._resuming: asyncio.Task[None] | None = None
        self._talking: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Take over from an earlier agent, and listen.

        Raises:
            InvalidArgument: the socket's place cannot be used.
            AlreadyExists: somebody listens there.
        """
        try:
            await asyncio.to_thread(self._open)
        except OSError as error:
            reason = f"{self._path}: {error.strerror or error}"
            raise InvalidArgument("[restore] socket", reason) from error
        self._accepting = asyncio.create_task(self._accept())
        self._resuming = asyncio.create_task(self._answers.resume())

    async def stop(self, grace_seconds: float) -> None:
        """Listen no more, and give up what is under way for longer than that: it starts cold."""
        ending = [task for task in (self._accepting, self._resuming) if task is not None]
        for task in ending:
            task.cancel()
        if ending:
            await asyncio.wait(ending)
        if self._listener is not None:
            self._path.unlink(missing_ok=True)
            self._listener.close()
        if self._talking:
            _, late = await asyncio.wait(self._talking, timeout=grace_seconds)
            for talking in late:
                talking.cancel()
            if late:
                await asyncio.wait(late)
        await self._answers.stop()

    def _open(self) -> None:
        self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._sandboxes.load()
        if self._path.exists():
            self._check_dead()
            self._path.unlink(missing_ok=True)
        self._listener = listen(self._path.parent, self._path.name)
        self._listener.listen(_BACKLOG)
        self._listener.setblocking(False)

    def _check_dead(self) -> None:
        if not self._path.is_socket():
            raise FileExistsError(errno.EEXIST, "is there, and is no socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            # One whose queue is full is alive as well, and would be waited for.
            probe.setblocking(False)
            try:
                probe.connect(str(self._path))
            except ConnectionRefusedError:
                return
            except BlockingIOError:
                pass
        raise AlreadyExists("a program that listens at this socket", str(self._path))

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        assert self._listener is not None  # noqa: S101 - start() has opened it
        while True:
            try:
                connected, _ = await loop.sock_accept(self._listener)
            except OSError as error:
                # Out of descriptors, for instance: others give theirs back.
                log.warning("cannot accept", reason=os.strerror(error.errno or 0))
                await asyncio.sleep(0.1)
                continue
            talking = asyncio.create_task(self._talk(connected))
            self._talking.add(talking)
            talking.add_done_callback(self._talking.discard)

    async def _talk(self, connected: socket.socket) -> None:
        with connected:
            conversation = Conversation(connected)
            if not conversation.is_root():
                return
            try:
                async with asyncio.timeout(_FIRST_SECONDS):
                    word, content = await conversation.receive()
                if word != "create":
                    raise InvalidArgument(word, "is no request")
                creation = creation_from(content)
            except (HungUp, TimeoutError):
                return
            except AgentError as error:
                with contextlib.suppress(HungUp):
                    await conversation.send("cold", {"reason": str(error)})
                return
            try:
                await self._answers.answer(conversation, creation)
            except HungUp:
                log.info("hung up", container=creation.target.container)
            except Exception:
                # What runs already goes on; else agent/host/wrapper/main.py decides, as it does
                # without an agent: cold, or not at all.
                container = creation.target.container
                log.exception("a defect: hung up, and checkpoint-runc decides", container=container)
