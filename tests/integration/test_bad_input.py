"""What cannot be checkpointed is refused for the right reason, and nothing has happened to it."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.compress import parse_compression
from agent.errors import (
    AlreadyExists,
    BundleInvalid,
    CheckpointNotFound,
    InvalidArgument,
    RestoreFailed,
    StoreFailed,
    TargetBusy,
    TargetNotCheckpointable,
    TargetNotFound,
)
from agent.store.file import FileStore
from bench.bundle import COUNTER, memory
from bench.reports import Counter, wait_until
from bench.runc import Container
from tests.fakes.slow_store import Step, WrappedStore
from tests.integration.aftermath import assert_unharmed, is_frozen, nothing_left
from tests.integration.lab import Lab
from tests.waiting import eventually_async

pytestmark = [pytest.mark.root, pytest.mark.criu]


def started(lab: Lab, mib: int = 8) -> Container:
    """A container that counts and holds memory."""
    return lab.runc.start(lab.runc.build(COUNTER, memory(mib)))


@contextmanager
def small_disk(directory: Path, mib: int) -> Iterator[Path]:
    """A file system of its own with as little room."""
    directory.mkdir()
    options = f"size={mib}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "small", directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


def make_read_only(disk: Path) -> None:
    """From now on nothing can be written there."""
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)


@pytest.mark.parametrize("name", ["nobody", "", "..", "a/b", "\0", "x" * 2000])
async def test_an_unknown_container(lab: Lab, name: str) -> None:
    container = started(lab)
    with nothing_left(lab), pytest.raises(TargetNotFound):
        await lab.checkpoint(Container(lab.runc, name, container.bundle))
    assert_unharmed(container)


async def test_a_stopped_container(lab: Lab) -> None:
    container = started(lab)
    lab.runc.run("kill", container.id, "KILL")
    wait_until(lambda: container.status() == "stopped", "the container ending")
    with nothing_left(lab), pytest.raises(TargetNotCheckpointable):
        await lab.checkpoint(container)
    assert container.status() == "stopped"


@pytest.mark.parametrize("content", [None, b"{", b"[]", b'{"root": 1}'])
async def test_a_bundle_that_cannot_be_read(lab: Lab, content: bytes | None) -> None:
    container = started(lab)
    config = container.bundle.path / "config.json"
    whole = config.read_bytes()
    config.unlink()
    if content is not None:
        config.write_bytes(content)
    try:
        with nothing_left(lab), pytest.raises(BundleInvalid):
            await lab.checkpoint(container)
    finally:
        config.write_bytes(whole)
    assert_unharmed(container)


@pytest.mark.parametrize("streams", [-1, 0, 65])
async def test_a_number_of_streams_out_of_range(lab: Lab, streams: int) -> None:
    container = started(lab)
    with nothing_left(lab), pytest.raises(InvalidArgument):
        await lab.checkpoint(container, streams=streams)
    assert_unharmed(container)


@pytest.mark.parametrize("codec", ["", "gzip", "zstd:", "zstd:99", "lz4:1", "none:0"])
def test_a_codec_that_does_not_exist(codec: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_compression(codec)


@pytest.mark.parametrize("stop", [False, True], ids=["leave-running", "stop"])
async def test_a_store_that_gets_full(lab: Lab, stop: bool) -> None:
    container = started(lab, mib=32)
    with small_disk(lab.directory / "small", 4) as disk:
        small = lab.with_store(FileStore(disk / "store"))
        with nothing_left(small), pytest.raises(StoreFailed, match="No space left"):
            await small.checkpoint(container, codec="none", stop=stop)
    assert_unharmed(container)


async def test_a_store_that_is_read_only_is_noticed_before_the_freeze(lab: Lab) -> None:
    container = started(lab)
    criu, hooked = lab.hook("pre-dump", "pass")
    with small_disk(lab.directory / "small", 4) as disk:
        make_read_only(disk)
        small = hooked.with_store(FileStore(disk / "store"))
        with nothing_left(small), pytest.raises(StoreFailed, match="Read-only"):
            await small.checkpoint(container)
    assert criu.hooks() == []
    assert_unharmed(container)


@pytest.mark.parametrize("stop", [False, True], ids=["leave-running", "stop"])
@pytest.mark.parametrize("step", ["create", "write", "commit", "manifest"])
async def test_a_store_that_fails_at_any_step(lab: Lab, step: Step, stop: bool) -> None:
    container = started(lab)

    def fail(reached: Step) -> None:
        if reached == step:
            raise StoreFailed(step, lab.store.url, "it has had enough")

    with nothing_left(lab), pytest.raises(StoreFailed, match="had enough"):
        await lab.with_store(WrappedStore(lab.store, pass_=fail)).checkpoint(container, stop=stop)
    assert_unharmed(container)


async def test_two_checkpoints_of_one_container(lab: Lab) -> None:
    container = started(lab)
    criu, hooked = lab.hook("post-dump")
    first = asyncio.create_task(hooked.checkpoint(container))
    await eventually_async(criu.reached, "the first one dumping")
    operations = lab.operations()
    with pytest.raises(TargetBusy) as busy:
        await lab.checkpoint(container, stop=True)
    assert lab.operations() == operations
    assert not first.done()
    criu.release()

    done = await first

    assert busy.value.owner_pid == os.getpid()
    assert_unharmed(container)
    assert lab.store.directories() == [done.checkpoint_id]


async def test_a_paused_container_stays_paused(lab: Lab) -> None:
    container = started(lab)
    report = container.report("counter")
    lab.runc.run("pause", container.id)
    wait_until(lambda: container.status() == "paused", "the container pausing")
    ticks = report.read(Counter.TICKS)

    done = await lab.checkpoint(container)

    assert container.status() == "paused"
    assert report.read(Counter.TICKS) == ticks
    assert is_frozen(container)
    lab.runc.run("resume", container.id)
    assert_unharmed(container)
    container.delete()
    report.write(Counter.TICKS, 0)
    await lab.restore(done.checkpoint_id)
    wait_until(lambda: report.read(Counter.RESUMED_FROM) == ticks, "going on where it was paused")


async def test_a_paused_container_stays_paused_when_its_checkpoint_fails(lab: Lab) -> None:
    container = started(lab)
    lab.runc.run("pause", container.id)

    def fail(_reached: Step) -> None:
        raise StoreFailed("write", lab.store.url, "it has had enough")

    with nothing_left(lab), pytest.raises(StoreFailed, match="had enough"):
        await lab.with_store(WrappedStore(lab.store, pass_=fail)).checkpoint(container)
    assert container.status() == "paused"
    lab.runc.run("resume", container.id)
    assert_unharmed(container)


async def test_restores_that_are_refused(lab: Lab) -> None:
    container = started(lab)
    done = await lab.checkpoint(container)
    with nothing_left(lab):
        with pytest.raises(CheckpointNotFound):
            await lab.restore("20000101-000000-0123456789")
        with pytest.raises(AlreadyExists):
            await lab.restore(done.checkpoint_id)
        with pytest.raises(InvalidArgument):
            await lab.restore(done.checkpoint_id, container="../evil")
        with pytest.raises(BundleInvalid):
            await lab.restore(done.checkpoint_id, container="new", bundle=lab.directory)
    assert_unharmed(container)
    assert lab.runc.containers() == [container.id]


async def test_a_restore_from_the_wrong_root_filesystem_leaves_nothing(lab: Lab) -> None:
    container = started(lab)
    done = await lab.checkpoint(container, stop=True)
    other = lab.runc.build(COUNTER)
    with nothing_left(lab), pytest.raises(RestoreFailed) as failed:
        await lab.restore(done.checkpoint_id, bundle=other.path)
    assert lab.runc.containers() == []
    assert failed.value.log_tail
    await lab.restore(done.checkpoint_id)
    assert container.status() == "running"
