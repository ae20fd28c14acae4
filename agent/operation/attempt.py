"""One run of runc or CRIU on behalf of an operation, to its end, with time to put things back."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import DEVNULL
from collections.abc import Callable, Sequence

from agent.config import Tools
from agent.errors import StoreFailed
from agent.host import criu, runc
from agent.host.run import describe_status, spawn
from agent.host.shield import to_the_end
from agent.operation.workplace import Workplace

# How long a run that was told to fail may take to put everything back. CRIU needs milliseconds; on
# a machine that swaps, seconds. After that it is terminated, which may cost a frozen task its life.
ROLLBACK_TIMEOUT = 30.0


def install_launcher(place: Workplace, tools: Tools, words: Sequence[str]) -> None:
    """Make the ``criu`` that runc finds, with options that runc cannot be told. Blocks.

    Raises:
        StoreFailed: the workplace cannot be written.
    """
    try:
        criu.install_launcher(place.launcher, tools, words)
    except OSError as error:
        raise StoreFailed("write", str(place.launcher), error.strerror or str(error)) from error


async def attempt(
    command: Sequence[str],
    place: Workplace,
    *,
    failed: asyncio.Event,
    hang_up: Callable[[], None],
) -> int:
    """Run a command that finds the workplace's launcher as ``criu``; returns its exit status.

    Args:
        failed: set when the other end of CRIU's sockets cannot go on.
        hang_up: closes those sockets, so that CRIU fails by itself and puts everything back; called
            when ``failed`` is set or the task is cancelled.
    """
    async with spawn(
        command,
        env=criu.launcher_environment(place.launcher),
        # A restored container inherits these: they must be nobody's pipes.
        stdout=DEVNULL,
        stderr=DEVNULL,
        # The lock goes along: nobody cleans up while an orphaned runc still rolls back.
        pass_fds=(place.lock,),
    ) as process:
        ended = asyncio.ensure_future(process.wait())
        failing = asyncio.ensure_future(failed.wait())
        try:
            await asyncio.wait({ended, failing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            failing.cancel()
            try:
                if not ended.done():
                    hang_up()
                    await to_the_end(asyncio.wait({ended}, timeout=ROLLBACK_TIMEOUT))
            finally:
                if not ended.done():
                    # Ending runc does not end its CRIU, which may have hold of the tasks.
                    place.keep()
                    ended.cancel()
    return await process.wait()


def complaint(place: Workplace, criu_log: str, status: int) -> tuple[str, str]:
    """What a failed run said, in a sentence, and the tail of CRIU's log."""
    log = criu.log_tail(place.work / criu_log)
    words = criu.advice(log) or runc.complaint(place.work / "runc.log")
    return words or describe_status(status), log
