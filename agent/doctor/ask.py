"""Asks programs for their version without ever failing: a broken tool is a finding."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from agent.errors import MissingTool
from agent.host.run import Completed, run

# A tool that takes longer to say its version hangs. `criu check` took 0.2 s cold on a slow machine.
PATIENCE = 20.0

# Statuses a shell would give, for programs that never came to give one.
TIMED_OUT, NOT_EXECUTABLE, NOT_FOUND = 124, 126, 127


async def ask(argv: Sequence[str | os.PathLike[str]]) -> Completed:
    """Run a program to its end; when that cannot be done, ``stderr`` says why."""
    words = tuple(os.fspath(word) for word in argv)
    try:
        return await run(argv, check=False, timeout=PATIENCE)
    except MissingTool as error:
        return Completed(words, NOT_FOUND, "", error.reason)
    except TimeoutError:
        return Completed(words, TIMED_OUT, "", f"no answer within {PATIENCE:.0f} s")
    except OSError as error:  # a text file or a binary for another processor
        return Completed(words, NOT_EXECUTABLE, "", error.strerror or str(error))


def last_line(done: Completed) -> str:
    """The last thing a program said, and rather its last error than a remark after it."""
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    telling = [line for line in lines if "Error" in line] or lines
    return telling[-1].strip() if telling else f"exit status {done.returncode}, no output"


def version_in(text: str, before: str = "") -> tuple[int, ...] | None:
    """The first dotted number of ``text`` that follows ``before``: ``(4, 1, 1)``."""
    match = re.search(re.escape(before) + r"\D*?(\d+(?:\.\d+)+)", text)
    return tuple(int(part) for part in match[1].split(".")) if match else None


def dotted(version: tuple[int, ...]) -> str:
    """``(4, 1, 1)`` as ``4.1.1``."""
    return ".".join(map(str, version))
