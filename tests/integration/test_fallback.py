"""Where CRIU cannot stream the images become files for a while, and nothing else is different."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.errors import DumpFailed, RestoreFailed, StoreFailed
from agent.export import export
from agent.manifest import Options
from bench.bundle import COUNTER, Bundle
from bench.reports import Counter, wait_until
from bench.runc import Container
from tests.fakes.slow_store import Gate, Step, WrappedStore, gated
from tests.integration.aftermath import assert_gone, assert_unharmed, nothing_left
from tests.integration.lab import Lab
from tests.waiting import eventually_async

pytestmark = [pytest.mark.root, pytest.mark.criu]

TERMINAL = "the container has a terminal"


def configured(bundle: Bundle, section: str, **values: object) -> None:
    """Set some values in a section of the bundle's configuration."""
    path = bundle.path / "config.json"
    config = json.loads(path.read_text())
    config.setdefault(section, {}).update(values)
    path.write_text(json.dumps(config))


@contextmanager
def console(directory: Path) -> Iterator[socket.socket]:
    """A socket at ``directory``/console where runc hands over a terminal."""
    path = directory / "console"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(30)
        try:
            yield listener
        finally:
            path.unlink()


def received(listener: socket.socket) -> int:
    """The terminal that runc has handed over."""
    connection, _ = listener.accept()
    with connection:
        _, (terminal,), _, _ = socket.recv_fds(connection, 4096, 1)
    assert os.isatty(terminal)
    return terminal


@pytest.fixture
def with_terminal(lab: Lab) -> Iterator[Container]:
    """A container that counts, and whose terminal is kept open."""
    bundle = lab.runc.build(COUNTER)
    configured(bundle, "process", terminal=True)
    with console(lab.runc.directory) as listener:
        socket_path = listener.getsockname()
        lab.runc.run("run", "-d", "--console-socket", socket_path, "--bundle", bundle.path, "tty")
        terminal = received(listener)
    try:
        bundle.wait_ready()
        yield Container(lab.runc, "tty", bundle)
    finally:
        os.close(terminal)


def with_criu_config(lab: Lab) -> tuple[Container, Path]:
    """A container that counts, and the configuration file that runc names to CRIU."""
    file = lab.directory / "criu.conf"
    file.write_text("ghost-limit 2M\n")
    bundle = lab.runc.build(COUNTER)
    configured(bundle, "annotations", **{"org.criu.config": str(file)})
    return lab.runc.start(bundle), file


def forgotten(container: Container) -> int:
    """Its last count, when it is gone; only an image knows it from now on."""
    wait_until(lambda: container.status() == "absent", "the container ending")
    report = container.report("counter")
    ticks = report.read(Counter.TICKS)
    report.write(Counter.TICKS, 0)
    return ticks


def assert_resumed(container: Container, earliest: int, latest: int) -> None:
    """It goes on counting from a number of the image, which was taken between these two."""
    report = container.report("counter")
    wait_until(lambda: report.read(Counter.RESUMES) == 1, "the counter going on")
    assert earliest <= report.read(Counter.RESUMED_FROM) <= latest
    report.wait_beyond(Counter.TICKS, report.read(Counter.RESUMED_FROM) + 20)
    assert container.status() == "running"


async def test_a_container_with_a_terminal_runs_on(lab: Lab, with_terminal: Container) -> None:
    done = await lab.checkpoint(with_terminal)
    assert (done.streamed, done.fallback_reason, done.stopped) == (False, TERMINAL, False)
    assert 0 < done.frozen_seconds <= done.wall_seconds
    assert_unharmed(with_terminal)
    assert lab.operations() == []


async def test_a_container_with_a_terminal_is_stopped_only_when_its_checkpoint_is_stored(
    lab: Lab, with_terminal: Container
) -> None:
    gate = Gate()
    slow = lab.with_store(gated(lab.store, "manifest", gate))
    report = with_terminal.report("counter")
    async with asyncio.TaskGroup() as group:
        work = group.create_task(slow.checkpoint(with_terminal, stop=True))
        await eventually_async(gate.reached.is_set, "the manifest being written")
        status, ticks = with_terminal.status(), report.read(Counter.TICKS)
        stored = lab.stored()
        gate.open()
    assert status == "paused"
    assert not any(path.endswith("manifest.json") for path in stored)
    assert (work.result().streamed, work.result().fallback_reason) == (False, TERMINAL)
    assert any(path.endswith("manifest.json") for path in lab.stored())
    assert report.read(Counter.TICKS) == ticks
    assert_gone(with_terminal)


@pytest.mark.parametrize("stop", [False, True], ids=["leave-running", "stop"])
@pytest.mark.parametrize("step", ["create", "commit", "manifest"])
async def test_a_container_with_a_terminal_runs_on_when_the_store_fails(
    lab: Lab, with_terminal: Container, step: Step, stop: bool
) -> None:
    def fail(reached: Step) -> None:
        if reached == step:
            raise StoreFailed(step, lab.store.url, "it has had enough")

    failing = lab.with_store(WrappedStore(lab.store, pass_=fail))
    with nothing_left(lab), pytest.raises(StoreFailed, match="had enough"):
        await failing.checkpoint(with_terminal, stop=stop)
    assert_unharmed(with_terminal)


async def test_options_that_only_a_stream_can_have_are_refused(
    lab: Lab, with_terminal: Container
) -> None:
    options = Options(log_level=1)
    with nothing_left(lab), pytest.raises(DumpFailed, match=r"log level 1 .* terminal"):
        await lab.checkpoint(with_terminal, stop=True, options=options)
    assert_unharmed(with_terminal)


async def test_a_terminal_comes_back_through_an_export(lab: Lab, with_terminal: Container) -> None:
    before = with_terminal.report("counter").read(Counter.TICKS)
    done = await lab.checkpoint(with_terminal, stop=True)
    after = forgotten(with_terminal)
    with nothing_left(lab), pytest.raises(RestoreFailed, match=r"export .* --console-socket"):
        await lab.restore(done.checkpoint_id)
    assert_gone(with_terminal)

    images = lab.directory / "exported"
    await export(lab.store, done.checkpoint_id, images)
    with console(lab.runc.directory) as listener:
        words = ("--console-socket", listener.getsockname())
        again = lab.runc.restore(with_terminal.bundle, images, "again", *words)
        terminal = received(listener)
    try:
        assert_resumed(again, before, after)
    finally:
        os.close(terminal)


@pytest.mark.parametrize("stop", [False, True], ids=["leave-running", "stop"])
async def test_a_configuration_file_of_criu_is_obeyed(lab: Lab, stop: bool) -> None:
    container, file = with_criu_config(lab)
    before = container.report("counter").read(Counter.TICKS)

    done = await lab.checkpoint(container, stop=stop)

    assert (done.streamed, done.fallback_reason) == (False, f"configuration file {file}")
    if not stop:
        assert_unharmed(container)
        container.delete()
    after = forgotten(container)
    restored = await lab.restore(done.checkpoint_id)
    assert (restored.streamed, restored.fallback_reason) == (False, f"configuration file {file}")
    assert_resumed(container, before, after)
    assert lab.operations() == []


async def test_what_was_dumped_to_files_can_be_streamed_back(lab: Lab) -> None:
    container, file = with_criu_config(lab)
    done = await lab.checkpoint(container, stop=True)
    after = forgotten(container)
    file.unlink()
    restored = await lab.restore(done.checkpoint_id)
    assert (done.streamed, restored.streamed) == (False, True)
    assert_resumed(container, 0, after)


async def test_what_was_streamed_can_be_restored_by_runc_from_files(lab: Lab) -> None:
    container = lab.runc.start(lab.runc.build(COUNTER))
    before = container.report("counter").read(Counter.TICKS)
    done = await lab.checkpoint(container, stop=True)
    after = forgotten(container)
    images = lab.directory / "exported"

    await export(lab.store, done.checkpoint_id, images)

    assert done.streamed
    exported = lab.runc.restore(container.bundle, images, "exported")
    assert_resumed(exported, before, after)
