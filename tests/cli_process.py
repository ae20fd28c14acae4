"""The command line as its users meet it: a process with arguments, two streams and an exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CLI = (sys.executable, "-m", "agent")

# Seconds; a start takes 0.15 s, and two slow cores under load have been seen to need 5.
PATIENCE = 50.0


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what would change the output, plus ``extra``."""
    noisy = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TERM")
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in noisy and not name.startswith("CHECKPOINT_AGENT_ST")
    }
    return kept | {"PYTHONPATH": str(ROOT), "TERM": "xterm"} | dict(extra or {})


def run_cli(
    *arguments: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end, on pipes."""
    return subprocess.run(
        [*CLI, *arguments],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(env),
    )


@contextmanager
def start_cli(
    *arguments: str, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Start the command line on pipes; it does not outlive the block."""
    process = subprocess.Popen(
        [*CLI, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(env),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def only_document(text: str) -> Any:  # noqa: ANN401 - whatever the JSON holds
    """The one JSON document that ``text`` consists of; fails when there is anything else."""
    return json.loads(text)
