"""The one place where the agent starts programs.

Argument lists only, never a shell. No ``preexec_fn``, ``user=`` or ``group=``: those make CPython
fork instead of vfork, and gRPC's at-fork handlers were measured to kill 10-30 % of such children.
Children get a session of their own, so that Ctrl-C on the terminal reaches the agent alone, which
then rolls back in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shlex
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from agent.errors import AgentError, MissingTool
from agent.host.shield import to_the_end
from agent.logs import get_logger

Argument = str | os.PathLike[str]

# What a child may inherit. Everything else (tokens, store credentials) stays with the agent.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "XDG_RUNTIME_DIR")

# How long a child is given after SIGTERM before SIGKILL, in seconds. runc answers TERM at once;
# five seconds is for a machine under memory pressure.
TERM_GRACE = 5.0

# Seconds that a child is waited for after SIGKILL. It ends in milliseconds, or when the kernel has
# freed its memory, at 10 GB/s and more. Who is there still hangs in the kernel, in a driver or a
# dead server's files, maybe for ever; and an agent that ends has 120 s (systemd's unit) for all.
KILL_GRACE = 10.0

log = get_logger(__name__)

# Of a program that is not there or is none, a half-written one or another machine's.
_NO_PROGRAM = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ELOOP, errno.ENOEXEC)


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that has ended. A negative ``returncode`` is the signal that ended it."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


@dataclass(eq=False)
class CommandFailed(AgentError):
    """A program ended with a non-zero status. Callers translate it into what it means to a user."""

    code: ClassVar[str] = "command_failed"
    template: ClassVar[str] = "`{command}` ended with {status}: {stderr}"

    command: str
    status: str
    stderr: str


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a child: the inherited few, then ``extra``."""
    return {name: os.environ[name] for name in INHERITED if name in os.environ} | dict(extra or {})


def describe_status(returncode: int) -> str:
    """``exit status 1`` or ``SIGKILL``."""
    if returncode >= 0:
        return f"exit status {returncode}"
    try:
        return signal.Signals(-returncode).name
    except ValueError:
        return f"signal {-returncode}"


@asynccontextmanager
async def spawn(
    argv: Sequence[Argument],
    *,
    env: Mapping[str, str] | None = None,
    stdin: int = DEVNULL,
    stdout: int = PIPE,
    stderr: int = PIPE,
    pass_fds: Sequence[int] = (),
    grace: float | None = None,
) -> AsyncIterator[Process]:
    """Start a program; it has ended, one way or another, when the block is left.

    Only one that hangs in the kernel is left to itself then, with a line in the log.

    Args:
        grace: seconds that it is given after SIGTERM; TERM_GRACE when not given.

    Raises:
        MissingTool: the program is not there or not executable.
        OSError: it cannot be started now.
    """
    words = [os.fspath(word) for word in argv]
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            env=environment(env),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=pass_fds,
            start_new_session=True,
        )
    except OSError as error:
        if error.errno not in _NO_PROGRAM:
            raise
        raise MissingTool(tool=Path(words[0]).name, reason=error.strerror or "not found") from error
    handle = await _open_handle(process)
    try:
        yield process
    finally:
        await to_the_end(_end(process, handle, TERM_GRACE if grace is None else grace))


async def _open_handle(process: Process) -> int | None:
    """A descriptor that never means a later process with the same pid; None when it is gone."""
    try:
        return os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    except OSError:
        # No descriptor is left. Hardly anybody has waited for it yet, so the pid is still its own.
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        await to_the_end(_reap(process))
        raise


async def _end(process: Process, handle: int | None, grace: float) -> None:
    """TERM, wait, KILL, and reap: no call returns with a child that can be ended.

    Signals go through the descriptor: Process.send_signal() polls, and may reap the child before
    asyncio's own watcher does.
    """
    if handle is not None:
        try:
            if process.returncode is None and _signal(handle, signal.SIGTERM):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), grace)
            if process.returncode is None:
                _signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)
    await _reap(process)


async def _reap(process: Process) -> None:
    """Wait for one that was killed; asyncio's watcher reaps it when it ends later than that."""
    try:
        await asyncio.wait_for(process.wait(), KILL_GRACE)
    except TimeoutError:
        log.warning("a program does not end; it is left behind", pid=process.pid)
        # Our ends of its pipes, which would stay open for as long.
        process._transport.close()  # type: ignore[attr-defined]


def _signal(handle: int, number: int) -> bool:
    try:
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    return True


async def run(
    argv: Sequence[Argument],
    *,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,  # noqa: ASYNC109 - the caller's deadline, enforced with asyncio.timeout
    check: bool = True,
) -> Completed:
    """Run a program to its end with no standard input and collect its output.

    Args:
        timeout: seconds after which it is ended and TimeoutError raised.
        check: raise CommandFailed for a non-zero status.

    Raises:
        MissingTool: the program is not there.
        CommandFailed: it failed, and ``check`` is set.
        TimeoutError: it took longer than ``timeout``.
    """
    async with spawn(argv, env=env) as process:
        async with asyncio.timeout(timeout):
            out, err = await process.communicate()
    words = tuple(os.fspath(word) for word in argv)
    code = process.returncode if process.returncode is not None else -signal.SIGKILL
    done = Completed(words, code, out.decode(errors="replace"), err.decode(errors="replace"))
    if check and code != 0:
        raise CommandFailed(shlex.join(words), describe_status(code), done.stderr.strip())
    return done
