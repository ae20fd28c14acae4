"""A restore onto a root filesystem that nobody has used: its layer comes back, or nothing does."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agent.errors import RestoreFailed, StoreFailed
from agent.manifest import ROOTFS_DIFF
from bench.reports import Counter, wait_until
from tests.fakes.hooked_criu import Action
from tests.fakes.slow_store import Gate, gated
from tests.fakes.stores import failing
from tests.integration.aftermath import nothing_left
from tests.integration.agents import recovered, restoring
from tests.integration.lab import Lab
from tests.integration.overlays import Overlaid, change, overlaid, stopped_checkpoint
from tests.integration.trees import processes

pytestmark = [pytest.mark.root, pytest.mark.criu]

# More than one read's worth, so that a store can stop in the middle of it.
LARGE = 8 << 20


async def moved(lab: Lab) -> tuple[Overlaid, str]:
    """A container that is gone, its bundle with a fresh overlay, and its checkpoint."""
    made = overlaid(lab)
    change(made.rootfs)
    (made.rootfs / "large").write_bytes(os.urandom(LARGE))
    checkpoint_id = await stopped_checkpoint(lab, made.container)
    made.renew()
    made.upper.chmod(0o711)
    return made, checkpoint_id


def assert_back(made: Overlaid) -> None:
    """It goes on, with the files that it had, which are of the moment that its memory is of."""
    report = made.container.report("counter")
    report.wait_beyond(Counter.TICKS, report.read(Counter.TICKS) + 10)
    assert report.read(Counter.RESUMES) == 0
    assert not (made.rootfs / "etc" / "gone").exists()
    assert os.listdir(made.rootfs / "old") == ["sub"]
    assert (made.rootfs / "large").stat().st_size == LARGE


@contextmanager
def fresh_afterwards(lab: Lab, made: Overlaid) -> Iterator[None]:
    """The block leaves neither anything running nor anything in the layer."""
    with nothing_left(lab):
        yield
        assert lab.runc.containers() == []
        assert made.is_fresh()
        assert made.upper.stat().st_mode & 0o7777 == 0o711
        assert "user.note" not in os.listxattr(made.upper)


async def test_the_layer_of_a_fresh_overlay(lab: Lab) -> None:
    made, checkpoint_id = await moved(lab)

    result = await lab.restore(checkpoint_id)

    assert result.not_restored == []
    assert result.phases["unpack"] > 0
    assert_back(made)


async def test_a_layer_that_is_not_empty_is_left_alone(lab: Lab) -> None:
    made = overlaid(lab)
    checkpoint_id = await stopped_checkpoint(lab, made.container)
    (made.rootfs / "mine").write_text("somebody's")

    result = await lab.restore(checkpoint_id)

    assert result.not_restored == [f"app/{ROOTFS_DIFF}"]
    assert "unpack" not in result.phases
    assert (made.upper / "mine").read_text() == "somebody's"


@pytest.mark.parametrize("action", ["fail", "kill"])
async def test_a_restore_that_fails_afterwards(lab: Lab, action: Action) -> None:
    made, checkpoint_id = await moved(lab)
    _, broken = lab.hook("post-restore", action)

    with fresh_afterwards(lab, made), pytest.raises(RestoreFailed):
        await broken.restore(checkpoint_id)

    result = await lab.restore(checkpoint_id)
    assert result.not_restored == []
    assert_back(made)


async def test_a_store_that_fails_in_the_layer(lab: Lab) -> None:
    made, checkpoint_id = await moved(lab)
    broken = lab.with_store(failing(lab.store, "read", 6))

    with fresh_afterwards(lab, made), pytest.raises(StoreFailed):
        await broken.restore(checkpoint_id)

    await lab.restore(checkpoint_id)
    assert_back(made)


async def test_given_up_in_the_layer(lab: Lab) -> None:
    made, checkpoint_id = await moved(lab)
    gate = Gate()

    def while_it_is_down() -> None:
        if not made.rootfs.is_mount():
            gate()

    slow = lab.with_store(gated(lab.store, "read", while_it_is_down))

    with fresh_afterwards(lab, made):
        work = asyncio.create_task(slow.restore(checkpoint_id))
        await asyncio.to_thread(gate.reached.wait)
        work.cancel()
        await asyncio.sleep(0.05)
        gate.open()
        with pytest.raises(asyncio.CancelledError):
            await work

    await lab.restore(checkpoint_id)
    assert_back(made)


def slow_tar(lab: Lab) -> str:
    """A PATH with a tar that leaves a file, and then does nothing but read."""
    program = lab.directory / "bin" / "tar"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n: >/directory/part\nexec cat >/dev/null\n")
    program.chmod(0o755)
    return f"{program.parent}:{os.environ['PATH']}"


@pytest.mark.parametrize("asked", [True, False], ids=["recovery", "next-restore"])
async def test_killed_in_the_layer(lab: Lab, asked: bool) -> None:
    made, checkpoint_id = await moved(lab)
    criu, _ = lab.hook("pre-restore", "pass")
    path = f"{lab.store.url}/{checkpoint_id}"
    with restoring(lab, path, criu, PATH=slow_tar(lab)) as agent:
        wait_until((made.upper / "part").exists, "tar beginning")
        assert not made.rootfs.is_mount()
        agent.kill()
        agent.wait()

    if asked:
        (found,) = await recovered(lab)
        assert found.removed
        assert made.is_fresh()
        assert made.upper.stat().st_mode & 0o7777 == 0o711

    result = await lab.restore(checkpoint_id)
    assert result.not_restored == []
    assert_back(made)


async def test_killed_when_the_layer_is_back(lab: Lab) -> None:
    """What is there now may have been used since: it stays, and is what the checkpoint needs."""
    made, checkpoint_id = await moved(lab)
    criu, _ = lab.hook("pre-restore")
    with nothing_left(lab):
        with restoring(lab, f"{lab.store.url}/{checkpoint_id}", criu) as agent:
            wait_until(criu.reached, "the hook being reached")
            agent.kill()
            agent.wait()
            criu.release()
            wait_until(lambda: not processes(str(lab.state_dir)), "everybody ending")
        await recovered(lab)
        assert lab.runc.containers() == []
    assert (made.upper / "large").stat().st_size == LARGE

    result = await lab.restore(checkpoint_id)
    assert result.not_restored == [f"app/{ROOTFS_DIFF}"]
    assert_back(made)
