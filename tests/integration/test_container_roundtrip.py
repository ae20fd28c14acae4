"""A container goes through a checkpoint and comes back as it was, streamed all the way."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.store.memory import MemoryStore
from bench.bundle import COUNTER, Bundle, memory
from bench.reports import Counter, Memory, wait_until
from bench.runc import Container
from tests.fakes.slow_store import Gate, gated
from tests.integration.aftermath import stood_still
from tests.integration.lab import Lab
from tests.stalls import stalls
from tests.waiting import eventually_async, meanwhile

pytestmark = [pytest.mark.root, pytest.mark.criu]

# What may be in an operation's images directory while CRIU streams. runc writes the last one.
NO_IMAGES = {"control.sock", "streamer-capture.sock", "streamer-serve.sock", "descriptors.json"}


def started(lab: Lab, mib: int = 8) -> Container:
    """A container that counts and holds memory, counting for a while already."""
    container = lab.runc.start(lab.runc.build(COUNTER, memory(mib)))
    container.report("counter").wait_beyond(Counter.TICKS, 20)
    return container


def assert_unchanged(container: Container) -> None:
    """Its memory is what it was, says the container itself."""
    report = container.report("memory")
    report.write(Memory.CHECKSUM, 0)
    report.ask(Memory.VERIFY, Memory.VERIFIED)
    assert report.read(Memory.CHECKSUM) != 0
    assert report.read(Memory.FAILURES) == 0


def forgotten(container: Container) -> int:
    """Its last count; the report says 0 from now on, so that only the image knows better."""
    report = container.report("counter")
    wait_until(lambda: container.status() == "absent", "the container ending")
    ticks = report.read(Counter.TICKS)
    report.write(Counter.TICKS, 0)
    return ticks


def assert_resumed(container: Container, earliest: int, latest: int, *, times: int = 1) -> None:
    """It goes on counting from a number of the image, which was taken between these two."""
    report = container.report("counter")
    wait_until(lambda: report.read(Counter.RESUMES) == times, "the counter going on")
    assert earliest <= report.read(Counter.RESUMED_FROM) <= latest
    report.wait_beyond(Counter.TICKS, report.read(Counter.RESUMED_FROM) + 20)
    assert container.status() == "running"


async def test_leaves_it_running_and_brings_it_back_after_a_kill(lab: Lab) -> None:
    container = started(lab)
    report = container.report("counter")
    before = report.read(Counter.TICKS)

    done = await lab.checkpoint(container)

    after = report.read(Counter.TICKS)
    assert container.status() == "running"
    assert report.wait_beyond(Counter.TICKS, after + 20) > before
    assert report.read(Counter.RESUMES) == 0
    container.delete()
    forgotten(container)
    restored = await lab.restore(done.checkpoint_id)

    assert (restored.target, restored.pid) == (container.id, container.pid())
    assert_resumed(container, before, after)
    assert_unchanged(container)
    assert (done.streamed, done.fallback_reason, done.stopped) == (True, None, False)
    assert (restored.streamed, restored.fallback_reason) == (True, None)
    assert restored.bytes_raw == done.bytes_raw > 8 << 20
    assert lab.operations() == []


async def test_stops_it_and_brings_it_back_under_another_id(lab: Lab) -> None:
    container = started(lab)
    before = container.report("counter").read(Counter.TICKS)

    done = await lab.checkpoint(container, stop=True)

    after = forgotten(container)
    assert done.stopped
    restored = await lab.restore(done.checkpoint_id, container="another")

    another = Container(lab.runc, "another", container.bundle)
    assert restored.target == "another"
    assert lab.runc.containers() == ["another"]
    assert_resumed(another, before, after)
    assert_unchanged(another)


async def test_restores_a_copy_beside_the_original(lab: Lab) -> None:
    container = started(lab)
    done = await lab.checkpoint(container)
    bundle = copied(container.bundle, lab.directory / "copy")
    ticks = bundle.report("counter").read(Counter.TICKS)
    bundle.report("counter").write(Counter.TICKS, 0)

    await lab.restore(done.checkpoint_id, container="copy", bundle=bundle.path)

    copy = Container(lab.runc, "copy", bundle)
    try:
        assert_resumed(copy, 1, ticks)
        assert_unchanged(copy)
        assert container.status() == "running"
        assert container.report("counter").read(Counter.RESUMES) == 0
    finally:
        copy.delete()


def copied(bundle: Bundle, path: Path) -> Bundle:
    """A second bundle with the same content and a cgroup of its own."""
    shutil.copytree(bundle.path, path, symlinks=True)
    config = json.loads((path / "config.json").read_text())
    cgroup = f"{bundle.cgroup}-copy"
    config["linux"]["cgroupsPath"] = f"/{cgroup}"
    (path / "config.json").write_text(json.dumps(config))
    return Bundle(path, cgroup, bundle.workloads)


async def test_restores_from_the_saved_configuration_when_the_bundle_is_gone(lab: Lab) -> None:
    container = started(lab)
    done = await lab.checkpoint(container, stop=True)
    ticks = forgotten(container)
    config = container.bundle.path / "config.json"
    config.rename(config.with_name("config.away"))

    await lab.restore(done.checkpoint_id)

    config.with_name("config.away").rename(config)
    assert_resumed(container, 1, ticks)
    assert_unchanged(container)


async def test_a_restored_container_can_be_checkpointed_and_restored_again(lab: Lab) -> None:
    container = started(lab)
    for times in (1, 2, 3):
        before = container.report("counter").read(Counter.TICKS)
        done = await lab.checkpoint(container, stop=True)
        after = forgotten(container)
        await lab.restore(done.checkpoint_id)
        assert_resumed(container, before, after, times=times)
    assert_unchanged(container)
    assert len(lab.store.directories()) == 3


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd:1", "zstd:3"])
async def test_every_codec_brings_back_the_same_memory(lab: Lab, codec: str) -> None:
    container = started(lab, mib=16)
    done = await lab.checkpoint(container, codec=codec, stop=True)

    await lab.restore(done.checkpoint_id)

    assert_unchanged(container)
    assert done.codec == codec
    smaller = done.bytes_stored < 0.9 * done.bytes_raw
    assert smaller == (codec != "none")


@pytest.mark.parametrize("streams", [1, 4, 64])
async def test_any_number_of_streams_brings_back_the_same_memory(lab: Lab, streams: int) -> None:
    container = started(lab, mib=16)
    done = await lab.checkpoint(container, streams=streams, stop=True)
    names = [path.partition("/")[2] for path in lab.stored()]

    await lab.restore(done.checkpoint_id)

    assert_unchanged(container)
    assert done.streams == streams
    assert names == ["manifest.json", *(f"stream-{n:03}" for n in range(streams))]


async def test_a_checkpoint_can_live_in_memory(lab: Lab) -> None:
    lab = lab.with_store(MemoryStore("here"))
    container = started(lab)
    done = await lab.checkpoint(container, stop=True)
    ticks = forgotten(container)

    await lab.restore(done.checkpoint_id)

    assert_resumed(container, 1, ticks)
    assert_unchanged(container)
    assert done.path == f"memory://here/{done.checkpoint_id}"


@contextmanager
def watched(directory: Path) -> Iterator[set[Path]]:
    """Every path that is below ``directory`` at any of many moments while the block runs."""
    seen: set[Path] = set()

    def look(over: threading.Event) -> None:
        while not over.wait(0.002):
            # Unlike Path.rglob, os.walk does not mind directories that vanish under it.
            for at, _, names in os.walk(directory):
                seen.update(Path(at, name) for name in names)

    with meanwhile(look):
        yield seen


async def test_no_image_ever_becomes_a_file(lab: Lab) -> None:
    container = started(lab)
    at_dump, hooked = lab.hook("post-dump", "pass")
    with watched(lab.state_dir) as seen:
        done = await hooked.checkpoint(container, stop=True)
    assert at_dump.hooks()[-1] in ("post-dump", "network-unlock")
    assert at_dump.files() <= NO_IMAGES
    assert {path.name for path in seen if path.parent.name == "images"} <= NO_IMAGES
    assert not [path for path in seen if path.suffix == ".img"]

    at_restore, hooked = lab.hook("pre-resume", "pass")
    with watched(lab.state_dir) as seen:
        await hooked.restore(done.checkpoint_id)
    assert at_restore.hooks()[-1] in ("pre-resume", "post-resume")
    assert at_restore.files() <= NO_IMAGES
    assert {path.name for path in seen if path.parent.name == "images"} <= NO_IMAGES
    assert not [path for path in seen if path.suffix == ".img"]


async def test_it_never_stands_still_for_longer_than_is_reported(lab: Lab) -> None:
    # More than the agent's buffers: a store that does not take anything holds the dump.
    container = started(lab, mib=64)
    report = container.report("counter")
    gate = Gate()
    slow = lab.with_store(gated(lab.store, "write", gate))
    report.ask(Counter.RESET, Counter.RESET_DONE)

    with stalls() as machine:
        async with asyncio.TaskGroup() as group:
            work = group.create_task(slow.checkpoint(container, codec="none"))
            await eventually_async(stood_still(container, 1.0), "the counter standing still")
            gate.open()

        frozen = work.result().frozen_seconds
        ticks = report.read(Counter.TICKS)
        report.wait_beyond(Counter.TICKS, ticks + 5)
        gap = report.read(Counter.GAP_NS) / 1e9
    assert gap >= 1
    # What the scheduler adds to a pause that long is far below half of it, or happens to all.
    assert gap - machine.longest <= 1.5 * frozen
    assert frozen <= work.result().wall_seconds
