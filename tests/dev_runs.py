"""`checkpoint-agent dev` as its users meet it: a process, and one document when it is ready."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench.reports import PATIENCE, wait_until
from tests.cli_process import CLI, environment
from tests.http import Answer, ask
from tests.integration.trees import kill_all, processes


@dataclass
class Dev:
    """One start of it. ``document`` is what it has printed when it was ready."""

    directory: Path
    process: subprocess.Popen[str]
    document: dict[str, Any] = field(default_factory=dict)

    def wait_ready(self) -> None:
        """Read the document."""
        printed = ""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            printed += line
            if line == "}\n":
                break
        self.document = json.loads(printed or "{}")
        assert "url" in self.document, printed

    def parts(self) -> list[psutil.Process]:
        """The programs it has started, of which every one names a file in the directory."""
        return [one for one in processes(f"{self.directory}/") if one.pid != self.process.pid]

    def part(self, name: str) -> psutil.Process:
        """One of them: broker, daemon or api."""
        children = psutil.Process(self.process.pid).children()
        # ... agent daemon --config FILE, and nats-server --config FILE.
        [found] = [
            one
            for one in children
            if Path(one.cmdline()[-3]).name == {"broker": "nats-server"}.get(name, name)
        ]
        return found

    def get(self, path: str, token: str | None = None) -> Answer:
        """GET of its API."""
        given = self.document["token"] if token is None else token
        return ask("GET", self.document["url"] + path, token=given)

    def post(self, path: str, body: object) -> str:
        """What it answers to JSON, with 200."""
        answer = ask("POST", self.document["url"] + path, json=body, token=self.document["token"])
        assert answer.status == 200, answer.text
        return answer.text

    def wait_pod(self, name: str) -> None:
        """Wait until it has seen a pod."""

        def seen() -> bool:
            nodes = self.get("/v2/nodes").json()
            return any(pod["name"] == name for node in nodes for pod in node["pods"])

        wait_until(seen, f"pod {name} being seen")

    def wait_state(self, action_id: str, state: str) -> dict[str, Any]:
        """Wait until an action is in a state; all of it then."""

        def action() -> dict[str, Any]:
            return dict(self.get(f"/v2/actions/{action_id}").json())

        wait_until(lambda: action()["status"] in (state, "error"), f"{action_id} being {state}")
        found = action()
        assert found["status"] == state, found
        return found

    def end(self, number: signal.Signals = signal.SIGINT) -> tuple[int, str, str]:
        """Send it a signal; exit code, the rest of standard output, and standard error."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> tuple[int, str, str]:
        """Wait for its end: the same."""
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err

    def wait_gone(self) -> None:
        """Wait until nothing runs that it has started."""
        wait_until(lambda: not self.parts(), "everything having ended")


@contextmanager
def dev_in(
    directory: Path,
    runc_root: Path,
    env: Mapping[str, str] | None = None,
    *,
    ready: bool = True,
) -> Iterator[Dev]:
    """One that does not outlive the block.

    Args:
        directory: its own; short, for the socket in it.
        ready: False does not wait for it.
    """
    where = ["--directory", str(directory), "--runc-root", str(runc_root)]
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "TERM", *CLI, "dev", *where, "--port", "0", "-o", "json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(env),
    )
    made = Dev(directory, process)
    try:
        if ready:
            made.wait_ready()
        yield made
    finally:
        process.kill()
        process.communicate()
        kill_all(f"{directory}/")


def modes(directory: Path) -> set[tuple[bool, int]]:
    """Of everything below: whether it is a directory, and what may be done with it."""
    found = [directory]
    for folder, folders, files in os.walk(directory):
        found += [Path(folder) / name for name in [*folders, *files]]
    return {(path.is_dir(), path.stat().st_mode & 0o777) for path in found}
