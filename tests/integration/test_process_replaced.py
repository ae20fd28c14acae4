"""A process ends before CRIU comes to it, and another one has its pid: that one is left alone."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import psutil
import pytest

from agent.errors import TargetNotCheckpointable
from agent.store.file import FileStore
from tests.integration.lab import Lab
from tests.pids import process_with
from tests.waiting import eventually_async

pytestmark = [pytest.mark.root, pytest.mark.criu]


class Swap:
    """A process whose pid another one gets."""

    def __init__(self, cleanup: ExitStack) -> None:
        self._cleanup = cleanup
        self._first = subprocess.Popen(
            ["sleep", "1000"],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        cleanup.callback(self._end_first)
        self.pid = self._first.pid

    def __call__(self) -> None:
        """End it, and start the other."""
        self._end_first()
        self._cleanup.enter_context(process_with(self.pid))

    def _end_first(self) -> None:
        if self._first.poll() is None:
            self._first.kill()
            self._first.wait()


class Slow(FileStore):
    """While it is tried whether it can be written, the process ends."""

    swap: Swap

    def check_writable(self) -> None:
        super().check_writable()
        self.swap()


@pytest.fixture
def swap() -> Iterator[Swap]:
    with ExitStack() as cleanup:
        yield Swap(cleanup)


def assert_unharmed(lab: Lab, pid: int) -> None:
    """The other one sleeps on, as nobody has stopped it, and nothing is kept of it."""
    assert lab.stored() == lab.operations() == []
    assert psutil.Process(pid).status() == psutil.STATUS_SLEEPING


@pytest.mark.parametrize("stop", [False, True], ids=["leave-running", "stop"])
async def test_before_criu_is_started(lab: Lab, swap: Swap, stop: bool) -> None:
    store = Slow(lab.directory / "store")
    store.swap = swap
    criu, hooked = lab.hook("pre-dump", "pass")
    with pytest.raises(TargetNotCheckpointable, match="another process"):
        await hooked.with_store(store).checkpoint(swap.pid, stop=stop)
    assert criu.hooks() == []
    assert_unharmed(lab, swap.pid)


@pytest.mark.parametrize("stop", [False, True], ids=["leave-running", "stop"])
async def test_before_criu_looks(lab: Lab, swap: Swap, stop: bool) -> None:
    criu, hooked = lab.hook("pre-dump")
    dumping = asyncio.create_task(hooked.checkpoint(swap.pid, stop=stop))
    await eventually_async(criu.reached, "the dump being about to begin")
    await asyncio.to_thread(swap)
    criu.release()
    with pytest.raises(TargetNotCheckpointable, match="another process has its pid"):
        await dumping
    assert "post-dump" in criu.hooks()
    assert_unharmed(lab, swap.pid)
