"""Why and how the daemon ends: a signal, a second one that is in a hurry, or a fault of its own."""

from __future__ import annotations

import asyncio
import signal

from agent.logs import get_logger

log = get_logger(__name__)

# A terminal that closes is no reason to leave anything frozen either.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

FAULT = 1

# Seconds. timeout(1) and Ctrl-C under make signal the process and its group: the same wish, twice.
SAME_WISH = 0.5


class Ending:
    """Belongs to one event loop.

    Attributes:
        asked: set when the daemon is to stop.
        hurried: set when it is not to wait for anything that it can put back.
        exit_code: what the process then ends with.
    """

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurried = asyncio.Event()
        self.exit_code = 0
        self._first_at: float | None = None

    def listen(self) -> None:
        """Hear signals from now on; the loop takes its handlers back when it closes.

        What nohup or a shell's background job has set to be ignored stays ignored.
        """
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self.signalled, number)

    def signalled(self, number: signal.Signals) -> None:
        """The first asks to stop, the next ones to hurry."""
        now = asyncio.get_running_loop().time()
        # Not whether it stops already: after a fault nobody has asked for anything yet.
        if self._first_at is None:
            log.info("stopping, in order", signal=number.name)
            self._first_at = now
            self.asked.set()
        elif now - self._first_at > SAME_WISH:
            log.info("hurrying; still nothing stays frozen", signal=number.name)
            self.hurried.set()

    def fault(self) -> None:
        """Something that has to run has ended."""
        self.exit_code = FAULT
        self.asked.set()
