"""Run one asynchronous operation to its end, whatever signals come.

A signal cancels the operation, and cancelling it is what rolls it back. Further signals are
answered but change nothing: who leaves at the second Ctrl-C may leave a frozen container behind.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from agent.cli.output import Output
from agent.cli.progress import shown
from agent.errors import Interrupted
from agent.report import Observer

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def perform(
    operation: Callable[[Observer], Coroutine[Any, Any, T]],
    output: Output,
    interrupted: type[Interrupted] = Interrupted,
) -> T:
    """Run ``operation`` with an observer that shows its progress and return its result.

    Args:
        interrupted: what to raise when a signal ended it; says what was rolled back.
    """
    with shown(output) as progress:
        return until_signalled(operation(progress.observe), progress.note, interrupted)


def until_signalled(
    work: Coroutine[Any, Any, T],
    note: Callable[[str], None],
    interrupted: type[Interrupted] = Interrupted,
) -> T:
    """Run ``work`` and return its result; a signal cancels it.

    Args:
        note: gets a line for each signal.
        interrupted: what to raise when a signal ended it; says what was rolled back.
    """
    # What nohup or a shell's background job has set to be ignored stays ignored.
    numbers = [n for n in SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
    try:
        return asyncio.run(_guarded(work, numbers, note, interrupted))
    finally:
        # There is nothing left to roll back: from here on a signal may end the program at once.
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


async def _guarded(
    work: Coroutine[Any, Any, T],
    numbers: list[signal.Signals],
    note: Callable[[str], None],
    interrupted: type[Interrupted],
) -> T:
    task = asyncio.create_task(work)
    canceller = _Canceller(task, note)
    loop = asyncio.get_running_loop()
    # The loop takes them back when it closes, after its last thread has ended.
    for number in numbers:
        loop.add_signal_handler(number, canceller.received, number)
    try:
        return await task
    except asyncio.CancelledError:
        if canceller.first is None:
            raise
        raise interrupted(canceller.first.name, int(canceller.first)) from None


class _Canceller:
    def __init__(self, task: asyncio.Task[Any], note: Callable[[str], None]) -> None:
        self._task = task
        self._note = note
        self.first: signal.Signals | None = None

    def received(self, number: signal.Signals) -> None:
        if self.first is None:
            self.first = number
            self._note(f"{number.name}: stopping, in order")
            self._task.cancel()
        else:
            self._note(f"{number.name}: still stopping; nothing is left frozen or half done")
