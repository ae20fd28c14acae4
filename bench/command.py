"""Runs ``checkpoint-agent`` as a user does: as a program, with ``-o json``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

Argument = str | os.PathLike[str]
Document = dict[str, object]

PROGRAM = "checkpoint-agent"


class CommandFailed(Exception):
    """checkpoint-agent ended with an error; the text is what it printed."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that did its work: what it printed, and the most memory it ever had, in bytes."""

    document: Document
    peak_bytes: int

    def number(self, field: str) -> float:
        """A field of the document as a number."""
        return float(str(self.document[field]))

    def text(self, field: str) -> str:
        """A field of the document as text."""
        return str(self.document[field])


def agent_argv() -> list[str]:
    """How to start it: the installed program beside this interpreter, else the module."""
    installed = Path(sys.executable).parent / PROGRAM
    return [str(installed)] if installed.exists() else [sys.executable, "-m", "agent"]


def run_agent(words: Sequence[Argument], *, env: Mapping[str, str] | None = None) -> Finished:
    """Run ``checkpoint-agent WORDS -o json``; its progress goes to our standard error.

    An interrupt is passed on and waited for: the agent puts things back first, and is never killed.
    (It has a session of its own, so that Ctrl-C on a terminal does not reach it a second time.)

    Raises:
        CommandFailed: it ended with an error.
        KeyboardInterrupt: after it has ended.
    """
    argv = [*agent_argv(), *words, "-o", "json"]
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=env or os.environ,
        start_new_session=True,
    )
    output, peak = _finish(process)
    if process.returncode != 0:
        printed = output.decode(errors="replace")
        raise CommandFailed(f"{' '.join(map(str, argv))}: {process.returncode}\n{printed}")
    return Finished(json.loads(output), peak)


def _finish(process: subprocess.Popen[bytes]) -> tuple[bytes, int]:
    """Read to the end and reap with wait4, which alone tells the peak memory of just this child."""
    if process.stdout is None:
        raise ValueError("no pipe to read from")
    interrupted = False
    parts: list[bytes] = []
    while True:
        try:
            while part := os.read(process.stdout.fileno(), 1 << 16):
                parts.append(part)
            _, status, usage = os.wait4(process.pid, 0)
            break
        except KeyboardInterrupt:
            interrupted = True
            os.kill(process.pid, signal.SIGINT)
    process.stdout.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    if interrupted:
        raise KeyboardInterrupt
    return b"".join(parts), usage.ru_maxrss * 1024


def interrupt_on_termination() -> None:
    """Let SIGTERM and SIGHUP end a program the way Ctrl-C does, so that its blocks clean up."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
