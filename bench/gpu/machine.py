"""The agent and GPU processes on a machine with a GPU: started, checkpointed, restored, ended."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PROJECT = Path(__file__).resolve().parent.parent.parent
_WORKLOAD = Path(__file__).with_name("workload.py")

# Of the agent: the project's own environment, or the bundle that needs nothing of the machine.
_AGENTS = (
    _PROJECT / ".venv/bin/checkpoint-agent",
    _PROJECT / ".tools/host-bundle/bin/checkpoint-agent",
)

_PR_SET_CHILD_SUBREAPER = 36

# Seconds. PyTorch alone takes ten to start on a cold machine, and minutes from a slow disk; 32 GiB
# take one to be summed up.
PATIENCE = 300.0


class Unusable(Exception):
    """This machine cannot run these tests; says why, in a line."""


def python_with_torch() -> str:
    """An interpreter that has PyTorch and sees a GPU. Raises Unusable."""
    if not Path("/dev/nvidiactl").exists() and "CHECKPOINT_AGENT_CUDA_LIBRARIES" not in os.environ:
        raise Unusable("no GPU here: there is no /dev/nvidiactl")
    check = "import torch, sys; torch.cuda.is_available() or sys.exit('its PyTorch sees no GPU')"
    complaints = ""
    for name in dict.fromkeys((os.environ.get("TORCH_PYTHON", ""), "python3", sys.executable)):
        if found := shutil.which(name):
            said = _complaint([found, "-c", check])
            if not said:
                return found
            complaints += f"; {found}: {said}"
    raise Unusable(f"no Python here has a PyTorch that sees the GPU (set TORCH_PYTHON){complaints}")


def _complaint(words: Sequence[str]) -> str:
    """The last line of what a program says when it fails; "" when it does not."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return f"no answer within {PATIENCE:.0f} s"
    if not done.returncode:
        return ""
    return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]


def agent() -> str:
    """The agent's command. Raises Unusable."""
    if os.geteuid() != 0:
        raise Unusable("only root can checkpoint a process")
    for path in _AGENTS:
        # An environment that was copied here from elsewhere may be there and not start.
        with suppress(OSError):
            if not _complaint([str(path), "--version"]):
                return str(path)
    raise Unusable(
        "the agent is not installed: run `make setup`, or where there is no network bring the"
        " directory .tools/host-bundle that deploy/host-bundle.sh makes elsewhere"
    )


@dataclass(frozen=True, slots=True)
class Workload:
    """A process on a GPU, in a session of its own; the pid stays through a restore."""

    pid: int
    directory: Path

    @property
    def steps(self) -> int:
        """How far it is."""
        with suppress(OSError, ValueError):
            return int((self.directory / "steps").read_text())
        return 0

    def beyond(self, steps: int) -> None:
        """Wait until it is further than that."""
        until(lambda: self.steps > steps, f"{self.directory.name} computing on")

    def digest(self) -> str:
        """What it has told last; waits for the first time."""
        until((self.directory / "digest").exists, f"{self.directory.name} telling its digest")
        return (self.directory / "digest").read_text()

    def digest_now(self) -> str:
        """Have it read all of its GPU memory again."""
        (self.directory / "digest").unlink()
        os.kill(self.pid, signal.SIGUSR1)
        return self.digest()


class Lab:
    """A directory for one test, and what runs in it."""

    def __init__(self, directory: Path, python: str, program: str) -> None:
        self.directory, self._python, self._agent = directory, python, program
        _adopt_orphans()
        self._pids: list[int] = []

    def start(self, name: str, *arguments: object) -> Workload:
        """A workload; it has begun to compute when this returns."""
        place = self.directory / name
        place.mkdir()
        words = [self._python, _WORKLOAD, arguments[0], place, *arguments[1:]]
        process = subprocess.Popen(
            [str(word) for word in words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self.directory / f"{name}.log").open("wb"),
            start_new_session=True,
        )
        self._pids.append(process.pid)
        made = Workload(process.pid, place)
        until(lambda: made.steps > 0 or process.poll() is not None, f"{name} beginning")
        if process.poll() is not None:
            raise RuntimeError((self.directory / f"{name}.log").read_text())
        return made

    def bandwidth(self) -> Any:  # noqa: ANN401 - JSON
        """Between the GPU and pinned memory, and versions; see workload.py."""
        place = self.directory / "bus"
        place.mkdir()
        words = [self._python, str(_WORKLOAD), "bandwidth", str(place)]
        subprocess.run(words, check=True, timeout=PATIENCE)
        return json.loads((place / "bandwidth").read_text())

    def checkpoint(self, workload: Workload, *options: str, store: Path | None = None) -> Any:  # noqa: ANN401 - JSON
        """What `checkpoint -o json` prints. Raises AgentSaid."""
        place = store or self.directory / "store"
        return self.run("checkpoint", "--pid", str(workload.pid), "--store", str(place), *options)

    def restore(self, path: str) -> Any:  # noqa: ANN401 - JSON
        """What `restore -o json` prints. Raises AgentSaid."""
        return self.run("restore", path)

    def run(self, *words: str) -> Any:  # noqa: ANN401 - JSON
        """What a command of the agent prints. Raises AgentSaid."""
        environment = os.environ | {"CHECKPOINT_AGENT_STATE_DIR": str(self.directory / "state")}
        done = subprocess.run(
            [self._agent, *words, "-o", "json"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
        )
        if done.returncode:
            raise AgentSaid(f"{' '.join(words)}: {done.stdout}{done.stderr}")
        return json.loads(done.stdout)

    def end(self) -> None:
        """Kill what still runs."""
        for pid in self._pids:
            with suppress(ProcessLookupError, ChildProcessError):
                os.killpg(pid, signal.SIGKILL)
            ended(pid)
        # Somebody else's may have these numbers from now on.
        self._pids.clear()


class AgentSaid(Exception):
    """The agent ended with an error; the text is what it printed."""


@contextmanager
def lab(python: str) -> Iterator[Lab]:
    """A lab in a new directory, on disk; nothing of it is left. Raises Unusable."""
    program = agent()
    directory = Path(tempfile.mkdtemp(prefix="gpu-", dir="/var/tmp"))
    made = Lab(directory, python, program)
    try:
        yield made
    finally:
        made.end()
        shutil.rmtree(directory, ignore_errors=True)


def ended(pid: int) -> None:
    """Reap what the agent has ended, so that its pids are free for the restored ones."""
    with suppress(ChildProcessError):
        # Not for ever: a driver may keep a process that was killed.
        until(lambda: os.waitpid(pid, os.WNOHANG)[0], f"process {pid} ending")
    # With what was below it.
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def _adopt_orphans() -> None:
    """Become the parent of what CRIU brings back: a container's first process may reap nothing."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def until(condition: Callable[[], object], what: str) -> None:
    """Return once it holds. Raises TimeoutError."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {PATIENCE:.0f} s")
        time.sleep(0.01)


def medians(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of each key that all rows have."""
    keys = [key for key in rows[0] if all(key in row for row in rows)]
    return {key: sorted(row[key] for row in rows)[len(rows) // 2] for key in keys}
