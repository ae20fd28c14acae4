"""Progress of an operation on standard error: a bar on a terminal, lines elsewhere.

The operation's own thread only drops updates into a queue. A thread of its own draws them, because
a terminal that was stopped with Ctrl-S blocks whoever writes to it, and a container may be frozen.
"""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TextIO

from agent.cli.figures import size
from agent.cli.output import Output, console, is_terminal
from agent.report import Observer, Update

# Seconds between two lines of one phase: enough to see that it moves, little enough for a journal.
LINE_INTERVAL = 2.0
# Seconds between two drawings of the bar.
FRAME = 0.1


class View(Protocol):
    """Something that draws updates. Used by one thread."""

    def update(self, update: Update) -> None:
        """Draw the state of things."""

    def note(self, text: str) -> None:
        """Say something to the person watching."""

    def idle(self) -> None:
        """Nothing has come for a frame's time."""

    def close(self) -> None:
        """The operation has ended."""


@dataclass(slots=True)
class Meter:
    """Turns updates into figures; the rate is that of the phase so far."""

    now: Callable[[], float] = time.monotonic
    _phase: str = field(default="", init=False)
    _began: float = field(default=0.0, init=False)
    _before: int = field(default=0, init=False)

    def figures(self, update: Update) -> str:
        """``45 %  1.23 GiB  812 MiB/s  612 MiB stored``, without what is not known or zero."""
        if update.phase != self._phase:
            self._phase, self._began, self._before = update.phase, self.now(), update.bytes_raw
        parts = []
        if update.bytes_total:
            parts.append(f"{min(100, 100 * update.bytes_raw // update.bytes_total):3} %")
        if update.bytes_raw:
            parts.append(size(update.bytes_raw))
        moved, elapsed = update.bytes_raw - self._before, self.now() - self._began
        if moved > 0 and elapsed > 0:
            parts.append(f"{size(moved / elapsed)}/s")
        if update.bytes_stored:
            parts.append(f"{size(update.bytes_stored)} stored")
        return "  ".join(parts)


@dataclass(slots=True)
class Lines:
    """A line per phase, and one every two seconds within it."""

    stream: TextIO
    now: Callable[[], float] = time.monotonic
    _phase: str = field(default="", init=False)
    _printed: float = field(default=0.0, init=False)
    _meter: Meter = field(init=False)

    def __post_init__(self) -> None:
        self._meter = Meter(self.now)

    def update(self, update: Update) -> None:
        """Print a line when the phase is new or the last line is old enough."""
        figures = self._meter.figures(update)
        if update.phase == self._phase and self.now() - self._printed < LINE_INTERVAL:
            return
        self._phase, self._printed = update.phase, self.now()
        self.note(f"{update.phase}: {figures}" if figures else update.phase)

    def note(self, text: str) -> None:
        """Print a line."""
        print(text, file=self.stream, flush=True)

    def idle(self) -> None:
        """Lines do not move."""

    def close(self) -> None:
        """Lines stay."""


class Quiet(Lines):
    """Only what has to be said; for programs that read JSON."""

    def update(self, update: Update) -> None:
        """Keep it to oneself."""


class Bar:
    """One line on a terminal that is drawn over and over, and vanishes at the end."""

    def __init__(self, stream: TextIO) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        self._meter = Meter()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[figures]}", markup=False),
            console=console(stream),
            # Drawn by the thread that owns this view: no second one may meet a broken terminal.
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._progress.add_task("starting", total=None, figures="")
        self._progress.start()

    def update(self, update: Update) -> None:
        """Draw bytes, rate and, where the total is known, how far it is."""
        self._progress.update(
            self._task,
            description=update.phase,
            completed=update.bytes_raw,
            total=update.bytes_total,
            figures=self._meter.figures(update),
        )
        self._progress.refresh()

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text)

    def idle(self) -> None:
        """Turn the spinner."""
        self._progress.refresh()

    def close(self) -> None:
        """Take the line away."""
        self._progress.stop()


@dataclass(frozen=True, slots=True)
class Progress:
    """The operation's end: neither call ever waits for the terminal."""

    observe: Observer
    note: Callable[[str], None]


@contextlib.contextmanager
def shown(output: Output) -> Iterator[Progress]:
    """Draw what is handed to the yielded object until the block is left."""
    items: queue.SimpleQueue[Update | str | None] = queue.SimpleQueue()
    painter = threading.Thread(
        target=_paint, args=(lambda: _view(output), items), name="progress", daemon=True
    )
    painter.start()
    try:
        yield Progress(items.put, items.put)
    finally:
        items.put(None)
        painter.join()


def _view(output: Output) -> View:
    if is_terminal(sys.stderr):
        return Bar(sys.stderr)
    return Quiet(sys.stderr) if output is Output.JSON else Lines(sys.stderr)


def _paint(make: Callable[[], View], items: queue.SimpleQueue[Update | str | None]) -> None:
    # OSError: the terminal or pipe is gone. The operation matters more than being watched.
    with contextlib.suppress(OSError), contextlib.closing(make()) as view:
        while True:
            try:
                item = items.get(timeout=FRAME)
            except queue.Empty:
                view.idle()
                continue
            if item is None:
                return
            if isinstance(item, Update):
                view.update(item)
            else:
                view.note(item)
