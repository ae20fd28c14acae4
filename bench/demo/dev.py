"""`checkpoint-agent dev`, for as long as the demo needs it."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.command import Argument, CommandFailed, agent_argv
from bench.demo.screen import show, shown_agent


@dataclass(frozen=True, slots=True)
class Dev:
    """Where the API is, and who may use it."""

    url: str
    token: str


@contextmanager
def dev(directory: Path, runc_root: Path, store: Path) -> Iterator[Dev]:
    """Show the command and run it; it has ended in order when the block is left.

    Raises:
        CommandFailed: it ended by itself; the text is what it printed.
    """
    own: list[Argument] = ["dev", "--directory", directory, "--port", "0"]
    more: list[Argument] = ["--runc-root", runc_root, "--store", f"file://{store}"]
    more += ["-o", "json"]
    show([*shown_agent(), *own], more)
    process = subprocess.Popen(
        # A session of its own, so that Ctrl-C does not reach it while we still use it. Where nobody
        # is left to end it, the kernel does.
        ["setpriv", "--pdeathsig", "TERM", *agent_argv(), *own, *more],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        # What it says about its end is not part of the story.
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield _ready(process)
    finally:
        process.send_signal(signal.SIGTERM)
        _wait(process)


def _ready(process: subprocess.Popen[str]) -> Dev:
    """Read what it prints when it is ready."""
    printed = ""
    for line in process.stdout or ():
        printed += line
        if line == "}\n":
            document = json.loads(printed)
            if "url" in document:
                return Dev(document["url"], document["token"])
    said = process.stderr.read() if process.stderr else ""
    raise CommandFailed(f"checkpoint-agent dev: {process.wait()}\n{printed}{said}")


def _wait(process: subprocess.Popen[str]) -> None:
    """However often somebody is in a hurry: it is ending, and takes seconds for that."""
    while process.returncode is None:
        try:
            process.communicate()
        except KeyboardInterrupt:
            continue
