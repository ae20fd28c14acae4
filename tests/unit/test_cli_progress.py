"""Progress as it appears on a terminal, in a pipe, and where nobody may be kept waiting."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from agent.cli.output import Output
from agent.cli.progress import Bar, Lines, Meter, shown
from agent.report import Update

MIB = 1 << 20
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    seconds: float = 100.0

    def __call__(self) -> float:
        return self.seconds


class Terminal:
    """A pseudo-terminal of 80 columns; what is written on it can be read when it is closed.

    A context manager; it may be closed in the block.
    """

    def __init__(self) -> None:
        master, slave = pty.openpty()
        self._master = os.fdopen(master, "rb", buffering=0)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.stream = os.fdopen(slave, "w")
        self._seen = bytearray()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> None:
        while True:
            try:
                self._seen += self._master.read(1 << 16)
            except OSError:  # EIO: the last writer has closed
                return

    def close(self) -> str:
        self.stream.close()
        self._reader.join()
        self._master.close()
        return self._seen.decode()


@contextmanager
def standard_error(stream: io.TextIOBase, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """``stream`` as this process's standard error."""
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", stream)
        yield


def test_meter_tells_what_is_known() -> None:
    clock = Clock()
    meter = Meter(clock)
    assert meter.figures(Update("prepare")) == ""
    assert meter.figures(Update("dump")) == ""
    clock.seconds += 2
    assert meter.figures(Update("dump", 10 * MIB, 4 * MIB)) == (
        "10.0 MiB  5.00 MiB/s  4.00 MiB stored"
    )
    clock.seconds += 3
    assert meter.figures(Update("commit", 10 * MIB, 4 * MIB)) == "10.0 MiB  4.00 MiB stored"
    clock.seconds += 1
    assert meter.figures(Update("commit", 10 * MIB, 4 * MIB)) == "10.0 MiB  4.00 MiB stored"


def test_meter_with_a_total_tells_the_percentage() -> None:
    clock = Clock()
    meter = Meter(clock)
    assert meter.figures(Update("verify", 0, 0, 8 * MIB)) == "  0 %"
    clock.seconds += 1
    assert meter.figures(Update("verify", 6 * MIB, 0, 8 * MIB)) == " 75 %  6.00 MiB  6.00 MiB/s"
    assert meter.figures(Update("verify", 9 * MIB, 0, 8 * MIB)).startswith("100 %")


def test_lines_one_per_phase_and_one_every_two_seconds() -> None:
    clock, stream = Clock(), io.StringIO()
    lines = Lines(stream, clock)
    for quarter in range(20):
        lines.update(Update("dump", quarter * MIB))
        clock.seconds += 0.25
    lines.update(Update("commit", 20 * MIB))
    lines.update(Update("commit", 20 * MIB))
    assert stream.getvalue().splitlines() == [
        "dump",
        "dump: 8.00 MiB  4.00 MiB/s",
        "dump: 16.0 MiB  4.00 MiB/s",
        "commit: 20.0 MiB",
    ]


def test_bar_stays_on_one_line_of_80_columns() -> None:
    with Terminal() as terminal:
        bar = Bar(terminal.stream)
        bar.update(Update("compress and store", 999 * MIB, 998 * MIB, 8 << 30))
        bar.idle()
        bar.note("SIGINT: stopping")
        bar.close()
        lines = re.split(r"[\r\n]+", ESCAPES.sub("", terminal.close()))
    assert max(map(len, lines)) <= 80
    drawn = [line for line in lines if "compress and store" in line]
    assert all(" 12 %  999 MiB" in line and "998 MiB stored" in line for line in drawn)
    assert len(drawn) >= 2
    assert "SIGINT: stopping" in lines


def test_terminal_gets_a_bar_whatever_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    with Terminal() as terminal:
        with standard_error(terminal.stream, monkeypatch), shown(Output.JSON) as progress:
            progress.observe(Update("dump", 5 * MIB))
        assert "5.00 MiB" in terminal.close()


def test_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with Terminal() as terminal:
        with standard_error(terminal.stream, monkeypatch), shown(Output.TEXT) as progress:
            progress.observe(Update("dump", 5 * MIB))
        assert terminal.close() == "dump: 5.00 MiB\r\n"


@pytest.mark.parametrize(
    ("output", "expected"),
    [(Output.TEXT, "dump: 5.00 MiB\nSIGTERM: x\n"), (Output.JSON, "SIGTERM: x\n")],
)
def test_pipe_gets_lines_and_with_json_only_what_has_to_be_said(
    output: Output, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with log.open("w") as stream, standard_error(stream, monkeypatch), shown(output) as progress:
        progress.observe(Update("dump", 5 * MIB))
        progress.note("SIGTERM: x")
    assert log.read_text() == expected


def _read_to_the_end(descriptor: int) -> None:
    while os.read(descriptor, 4096):
        pass


def test_observer_never_waits_for_whoever_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writing, b"." * 4096)
    drain = threading.Thread(target=_read_to_the_end, args=(reading,))
    stream = os.fdopen(writing, "w")
    try:
        with standard_error(stream, monkeypatch), shown(Output.TEXT) as progress:
            try:
                for number in range(1000):
                    progress.observe(Update(f"phase {number}"))
            finally:
                # All were taken while nobody read. Now they are read, and the block can be left.
                drain.start()
    finally:
        stream.close()
        drain.join()
        os.close(reading)


def test_reader_that_has_gone_does_not_disturb(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(os.dup(writing), "w", buffering=1)
    with standard_error(stream, monkeypatch), shown(Output.TEXT) as progress:
        for number in range(10):
            progress.observe(Update(f"phase {number}"))
    os.close(writing)
    with pytest.raises(BrokenPipeError):
        stream.close()
