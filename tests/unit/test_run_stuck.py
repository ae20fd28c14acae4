"""A child that not even SIGKILL ends: in a frozen cgroup of version 1, as in a hanging driver."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable

import psutil
import pytest

from agent.host import process
from agent.host import run as runner
from agent.host.run import run, spawn
from tests.cgroups import echo
from tests.waiting import PATIENCE, descriptors, opened_since

pytestmark = pytest.mark.root

# Tells the pid of its child and then ends, as far as it can.
AGENT = """
import asyncio, sys
from pathlib import Path
from agent.host import run
from agent.host.cgroup import Freezer

async def main():
    freezer = Freezer(Path(sys.argv[1]), 1)
    async with run.spawn(["sleep", "1000"]) as child:
        (freezer.path / "cgroup.procs").write_text(str(child.pid))
        freezer.freeze()
        print(child.pid)

run.TERM_GRACE = run.KILL_GRACE = 0.05
asyncio.run(main())
"""


async def soon(condition: Callable[[], bool]) -> bool:
    """Whether it comes true, while the loop goes on."""
    deadline = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < deadline:
        await asyncio.sleep(0.001)
    return condition()


async def test_it_is_left_behind_and_reaped_when_it_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runner, "TERM_GRACE", 0.05)
    monkeypatch.setattr(runner, "KILL_GRACE", 0.05)
    await run(["true"])  # what the loop opens once
    with echo(1) as frozen:
        before, others = descriptors(), psutil.Process().children()
        # Whoever waits for it without a limit finds it dead at last.
        rescue = asyncio.get_running_loop().call_later(PATIENCE, frozen.freezer.thaw)
        async with spawn(["sleep", "1000"]) as child:
            (frozen.freezer.path / "cgroup.procs").write_text(str(child.pid))
            frozen.freezer.freeze()

        assert process.is_alive(child.pid)
        assert await soon(lambda: not opened_since(before))
        assert f"'pid': {child.pid}" in caplog.text
        rescue.cancel()
        frozen.freezer.thaw()
        # Not even a zombie is left of it.
        assert await soon(lambda: psutil.Process().children() == others)


def test_the_agent_ends_all_the_same() -> None:
    with echo(1) as frozen:
        words = [sys.executable, "-c", AGENT, str(frozen.freezer.path)]
        done = subprocess.run(words, timeout=PATIENCE, check=True, capture_output=True)
        assert process.is_alive(int(done.stdout))
