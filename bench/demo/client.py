"""The API, asked as anybody would at a terminal: with curl."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from bench.command import CommandFailed
from bench.demo.dev import Dev
from bench.demo.screen import console, show

# JSON of an action.
Action = dict[str, Any]

_TOKEN = "$TOKEN"  # noqa: S105 - what is shown instead of it
_CURL = ["curl", "-sS", "--fail-with-body", "-H", f"Authorization: Bearer {_TOKEN}"]


@dataclass(frozen=True, slots=True)
class Client:
    """Shows each command before it runs it."""

    dev: Dev

    def post(self, path: str, body: dict[str, str]) -> str:
        """Send JSON; the answer.

        Raises:
            CommandFailed: it is an error.
        """
        content = ["-H", "Content-Type: application/json"], ["-d", json.dumps(body)]
        return self._answer(_CURL, *content, [self._url(path)])

    def get(self, path: str) -> str:
        """The answer. Raises CommandFailed if it is an error."""
        return self._answer(_CURL, [self._url(path)])

    def watch(self, path: str, see: Callable[[Action], None]) -> Action:
        """Hand on each event's data as it comes; the last one.

        Raises:
            CommandFailed: there was none.
        """
        lines = _CURL, ["-N", self._url(path)]
        show(*lines)
        last: Action | None = None
        with subprocess.Popen(
            self._argv(*lines), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        ) as process:
            for line in process.stdout or ():
                if line.startswith("data:"):
                    last = json.loads(line.removeprefix("data:"))
                    see(last)
        if last is None:
            raise CommandFailed(f"curl {path}: {process.returncode}")
        return last

    def _answer(self, *lines: list[str]) -> str:
        show(*lines)
        done = subprocess.run(
            self._argv(*lines), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise CommandFailed(f"curl: {done.returncode}\n{done.stdout}{done.stderr}")
        console.print(Text(done.stdout), soft_wrap=True)
        return done.stdout

    def _argv(self, *lines: list[str]) -> list[str]:
        return [word.replace(_TOKEN, self.dev.token) for line in lines for word in line]

    def _url(self, path: str) -> str:
        return f"{self.dev.url}{path}"
