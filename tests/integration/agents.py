"""Other agents at work, each a process to be killed, and the programs that work for them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from agent.operation.recovery import Recovered, recover
from bench.reports import PATIENCE, wait_until
from bench.runc import Container
from tests.cli_process import environment
from tests.fakes.hooked_criu import HookedCriu
from tests.fakes.slow_store import Step
from tests.integration.lab import Lab
from tests.integration.trees import processes

Process = subprocess.Popen[bytes]
Tool = Literal["runc", "launcher", "criu"]


@contextmanager
def _agent(lab: Lab, *words: str, **extra: str) -> Iterator[Process]:
    with (
        _log(lab).open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(extra),
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def _log(lab: Lab) -> Path:
    """What the agent says, for the one who wonders why a test failed."""
    return lab.directory / "agent.log"


@contextmanager
def checkpointing(
    lab: Lab, target: Container | int, criu: HookedCriu, *words: str, stop: bool
) -> Iterator[Process]:
    """The command line at a checkpoint that stops in a hook; ``words`` are further options."""
    named = ["--pid", str(target)]
    if isinstance(target, Container):
        named = [target.id, "--runc-root", str(lab.runc.path)]
    with _agent(
        lab,
        *("agent", "checkpoint", *named),
        *("--store", lab.store.url, "--state-dir", str(lab.state_dir)),
        *("--stop" if stop else "--leave-running", *words),
        CHECKPOINT_AGENT_CRIU=str(criu.program),
    ) as process:
        yield process


@contextmanager
def checkpointing_together(
    lab: Lab, containers: Iterable[Container], criu: HookedCriu
) -> Iterator[Process]:
    """An agent at a checkpoint of several containers that stops in a hook."""
    places = (str(lab.state_dir), lab.store.url, "read", str(lab.directory / "marker"))
    words = ("tests.fakes.held_agent", "pod", *places, str(lab.runc.path))
    ids = (each.id for each in containers)
    with _agent(lab, *words, *ids, CHECKPOINT_AGENT_CRIU=str(criu.program)) as process:
        yield process


@contextmanager
def restoring(lab: Lab, path: str, criu: HookedCriu, **extra: str) -> Iterator[Process]:
    """The command line at a restore that stops in a hook; ``extra`` is more of its environment."""
    with _agent(
        lab,
        *("agent", "restore", path, "--state-dir", str(lab.state_dir)),
        CHECKPOINT_AGENT_CRIU=str(criu.program),
        **extra,
    ) as process:
        yield process


@contextmanager
def held(lab: Lab, command: str, step: Step, *rest: str) -> Iterator[Process]:
    """An agent that has come to ``step`` of its store, and stays there."""
    marker = lab.directory / "marker"
    places = (str(lab.state_dir), lab.store.url, step, str(marker))
    with _agent(lab, "tests.fakes.held_agent", command, *places, *rest) as process:
        wait_until(lambda: marker.exists() or process.poll() is not None, f"coming to {step}")
        assert process.poll() is None, _log(lab).read_text()
        yield process


def working(lab: Lab, tool: Tool) -> int:
    """The pid of the program at work for an operation of this lab."""
    found = [each.pid for each in processes(str(lab.state_dir)) if _is(tool, each.cmdline())]
    assert len(found) == 1, f"{len(found)} of {tool}"
    return found[0]


def _is(tool: Tool, words: list[str]) -> bool:
    if tool == "criu":
        return "--action-script" in words
    if tool == "launcher":
        return bool({"swrk", "direct"} & set(words))
    return "--image-path" in words


def kill_together(pids: Iterable[int]) -> None:
    """Kill all of them before any can react to another's death."""
    pids = list(pids)
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


async def recovered(lab: Lab) -> list[Recovered]:
    """Recover until nothing is left to recover: what still rolls back is left alone meanwhile."""
    found: list[Recovered] = []
    async with asyncio.timeout(PATIENCE):
        while lab.operations():
            found += await recover(tools=lambda: lab.tools, state_dir=lab.state_dir)
            await asyncio.sleep(0.01)
    return found
