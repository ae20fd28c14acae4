"""One conversation with the agent, and the `runc restore` that comes of it."""

from __future__ import annotations

import contextlib
import os
import time
from select import POLLIN, poll

from agent.host import aside
from agent.host.wrapper import descendants
from agent.host.wrapper.arguments import Create
from agent.host.wrapper.connection import Connection, HungUp
from agent.host.wrapper.facts import Facts
from agent.host.wrapper.swap import Swap

# Not typing's, which takes 5 ms to import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What `checkpoint-runc start` looks for in a container's state directory.
MARKER = "checkpoint-restored"

# Seconds for an agent that listens to say that it is there: its loop is never busy for long.
_ANSWER_SECONDS = 10.0

# Beyond the agent's own limit, which is what should end a restore.
_GRACE_SECONDS = 5.0


class Cold(Exception):
    """There will be no restore; the text says why."""


class Refused(Exception):
    """There will be no restore, and no cold start either."""


class _Failed(Exception):
    """What this end had to do for a restore could not be done; the agent decides what follows."""


class Attempt:
    """A restore of one container. Who gets an exception calls :meth:`undo`."""

    def __init__(self, create: Create, facts: Facts, runc: str, agent: Connection) -> None:
        self._create, self._runc, self._agent = create, runc, agent
        self._swap = Swap(facts.root)
        self._volumes: list[str] = []
        self._started = False
        # Whether the agent has something to do when runc has ended: without it nothing is complete.
        self._unfinished = False

    def run(self) -> None:
        """When this returns, the container runs, and the agent knows.

        Raises:
            Cold, Refused, HungUp
        """
        create = self._create
        if os.path.lexists(self._state):
            # Another one's, which is not to be ended; runc will say so.
            raise Cold(f"there is a container {create.container} already")
        about = {
            "id": create.container,
            "root": os.path.abspath(create.root),
            "bundle": os.path.abspath(create.bundle),
            "upper": self._swap.upper(),
        }
        self._agent.send({"create": {**about, "impossible": create.unrestorable or ""}})
        begun = time.monotonic()
        limit = self._hear(begun + _ANSWER_SECONDS, "limit")
        deadline = begun + float(limit["seconds"]) + _GRACE_SECONDS
        pid = 0
        while True:
            try:
                word, content = self._agent.receive(deadline)
            except HungUp:
                if not pid or self._unfinished:
                    raise
                # runc and CRIU were content, so every image was there: it only heard nothing of it.
                self._forget_volumes()
                return
            if word == "volumes":
                self._volumes = [str(path) for path in content["paths"]]
            elif word == "run":
                pid = self._restore(content, deadline)
            elif word == "restored":
                # So does the agent, unless it dies now: a cold start would put back what is aside.
                self._forget_volumes()
                return
            else:
                self._give_up(word, content)

    def _hear(self, deadline: float, expected: str) -> dict[str, Any]:
        word, content = self._agent.receive(deadline)
        if word != expected:
            self._give_up(word, content)
        return content

    def _give_up(self, word: str, content: dict[str, Any]) -> None:
        reason = str(content.get("reason", word))
        raise Refused(reason) if word == "failed" else Cold(reason)

    def _restore(self, order: dict[str, Any], deadline: float) -> int:
        """Run runc once and tell the agent; the first process's pid, 0 when it failed."""
        self._unfinished = bool(order.get("unfinished"))
        pid, reason = 0, ""
        try:
            self._put_in(order["layer"])
            status = self._run(order, deadline)
            if status == 0:
                pid = self._pid()
            if pid:
                self._mark()
        except _Failed as error:
            status, pid, reason = 1, 0, str(error)
        self._agent.send({"ended": {"status": status, "pid": pid, "reason": reason}})
        return pid

    def _put_in(self, layer: str | None) -> None:
        """Give the container its writable layer from the checkpoint, if there is one."""
        if layer is None:
            return
        from agent.host.remount import RemountFailed

        try:
            self._swap.put_in(str(layer))
        except (OSError, RemountFailed) as error:
            raise _Failed(f"its writable layer: {error}") from None

    def _run(self, order: dict[str, Any], deadline: float) -> int:
        """runc's exit status."""
        work = str(order["work"])
        words = [self._runc, *self._create.globals(), "--log", f"{work}/runc.log"]
        flags = ["--image-path", str(order["images"]), "--work-path", work]
        flags += [str(flag) for flag in order["flags"]]
        # Where the agent's `criu` lies is what runc finds it by.
        path = f"{order['launcher']}:{os.environ.get('PATH', os.defpath)}"
        descendants.adopt(orphans=True)
        self._started = True
        try:
            program = os.posix_spawnp(
                self._runc, [*words, *self._create.restore(flags)], {**os.environ, "PATH": path}
            )
        except OSError as error:
            raise _Failed(f"{self._runc}: {error.strerror}") from None
        self._watch(program, deadline)
        _, status = os.waitpid(program, 0)
        return os.waitstatus_to_exitcode(status)

    def _watch(self, program: int, deadline: float) -> None:
        """Wait for runc to end. The agent speaks meanwhile only to put an end to it."""
        handle = os.pidfd_open(program)
        try:
            watched = poll()
            watched.register(handle, POLLIN)
            watched.register(self._agent, POLLIN)
            remaining = max(0.0, deadline - time.monotonic())
            ready = {descriptor for descriptor, _ in watched.poll(int(remaining * 1000))}
        finally:
            os.close(handle)
        if handle not in ready:
            # When it says nothing, that is late as well.
            self._give_up(*self._agent.receive(time.monotonic() + 1 if ready else deadline))

    def _pid(self) -> int:
        path = self._create.pid_file or "/dev/null"
        try:
            with open(path) as file:
                return int(file.read() or 0)
        except (OSError, ValueError) as error:
            raise _Failed(f"{path}: {error}") from None

    def _mark(self) -> None:
        """Say that it runs already, where it is forgotten together with the container."""
        try:
            open(f"{self._state}/{MARKER}", "xb").close()
        except OSError as error:
            raise _Failed(f"cannot write to {self._state}: {error.strerror}") from None

    @property
    def _state(self) -> str:
        return f"{self._create.root}/{self._create.container}"

    def undo(self) -> None:
        """End what was started, and make runc forget it. Raises Refused when that is impossible."""
        descendants.kill_all()
        descendants.adopt(orphans=False)
        try:
            if self._started and os.path.lexists(self._state):
                self._delete()
        except OSError as error:
            raise Refused(f"it cannot be removed again: {error}") from None
        self._agent.release()
        from agent.host.remount import RemountFailed

        try:
            self._swap.put_back()
        except (OSError, RemountFailed) as error:
            raise Refused(f"its writable layer: {error}") from None
        try:
            for path in self._volumes:
                aside.put_back(path)
        except OSError as error:
            raise Refused(f"its volumes: {error}") from None

    def _forget_volumes(self) -> None:
        for path in self._volumes:
            with contextlib.suppress(OSError):
                aside.forget(path)

    def _delete(self) -> None:
        # A killed `runc restore` leaves the root filesystem bind-mounted in its state directory,
        # and `runc delete` removes whatever it finds below that. Imported here: 15 ms.
        from pathlib import Path

        from agent.host.mounts import detach_below

        if not detach_below(Path(self._state)):
            raise Refused(f"cannot unmount what is below {self._state}")
        words = [self._runc, "--root", self._create.root, "delete", "--force"]
        with open(os.devnull, "r+b") as nothing:
            streams = [(os.POSIX_SPAWN_DUP2, nothing.fileno(), number) for number in (0, 1, 2)]
            program = os.posix_spawnp(
                self._runc, [*words, self._create.container], os.environ, file_actions=streams
            )
            os.waitpid(program, 0)
