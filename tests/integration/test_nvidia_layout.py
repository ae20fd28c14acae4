"""Containers that NVIDIA's runtime has filled with the driver's files and device nodes."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import RestoreFailed
from agent.host import mountinfo
from bench.bundle import COUNTER, Bundle
from bench.reports import Counter
from bench.runc import Container
from tests.integration.lab import Lab
from tests.nvidia import (
    LIBRARIES,
    NODES,
    NULL,
    ZERO,
    Driver,
    add_hook,
    edit_as_cdi,
    install_driver,
    shared,
)

pytestmark = [pytest.mark.root, pytest.mark.criu]


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    return install_driver(tmp_path / "driver", "570.124.06")


def seen(container: Container, path: str) -> Path:
    """A path of a running container."""
    return Path(f"/proc/{container.pid()}/root{path}")


def assert_has_driver(container: Container, content: bytes, *, as_version: str) -> None:
    """It has all that the runtime gave it, at the old places, and can change none of it."""
    library = f"{LIBRARIES}/libcuda.so.{as_version}"
    assert seen(container, library).read_bytes() == content
    table = mountinfo.read(f"/proc/{container.pid()}/mountinfo")
    mount = mountinfo.topmost(library.encode(), table)
    assert mount is not None
    assert {b"ro", b"nosuid", b"nodev"} <= set(mount.options)


def numbers(container: Container) -> set[tuple[int, int]]:
    """Of its device nodes."""
    found = [os.stat(seen(container, f"/dev/{node}")).st_rdev for node in NODES]
    return {(os.major(each), os.minor(each)) for each in found}


def another(lab: Lab, old: Bundle) -> Bundle:
    """A new bundle of the same image, with the file that the counter has open."""
    made = lab.runc.build(COUNTER)
    shutil.copytree(old.path / "rootfs/state", made.path / "rootfs/state", dirs_exist_ok=True)
    return made


async def test_by_its_configuration(lab: Lab, driver: Driver) -> None:
    bundle = lab.runc.build(COUNTER)
    edit_as_cdi(bundle, driver)
    container = lab.runc.start(bundle)
    result = await lab.checkpoint(container)
    container.delete()
    await lab.restore(result.checkpoint_id)
    assert_has_driver(container, driver.content("libcuda"), as_version="570.124.06")
    assert numbers(container) == {NULL}
    assert container.report("counter").read(Counter.RESUMES) == 1


async def test_by_its_configuration_with_another_driver(
    lab: Lab, driver: Driver, tmp_path: Path
) -> None:
    """Files of another version, and device nodes of other numbers, as after a reboot."""
    bundle = lab.runc.build(COUNTER)
    edit_as_cdi(bundle, driver)
    container = lab.runc.start(bundle)
    result = await lab.checkpoint(container, stop=True)
    newer = install_driver(tmp_path / "newer", "580.65.06")
    replacement = another(lab, bundle)
    edit_as_cdi(replacement, newer, number=ZERO)
    shutil.rmtree(driver.directory)
    await lab.restore(result.checkpoint_id, container="newer", bundle=replacement.path)
    restored = Container(lab.runc, "newer", replacement)
    assert_has_driver(restored, newer.content("libcuda"), as_version="570.124.06")
    assert numbers(restored) == {ZERO}


@pytest.fixture(params=["private", "shared"])
def installed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Driver]:
    """A driver in a directory whose mount is the machine's own, in both kinds of propagation."""
    directory = tmp_path / "machine"
    directory.mkdir()
    with shared(directory) if request.param == "shared" else contextlib.nullcontext():
        yield install_driver(directory / "driver", "570.124.06")


async def test_by_its_hook(lab: Lab, installed: Driver) -> None:
    bundle = lab.runc.build(COUNTER)
    add_hook(bundle, installed)
    container = lab.runc.start(bundle)
    result = await lab.checkpoint(container)
    assert result.streamed
    container.delete()
    await lab.restore(result.checkpoint_id)
    assert_has_driver(container, installed.content("libcuda"), as_version="570.124.06")
    assert numbers(container) == {NULL}
    assert seen(container, "/run/nvidia/params").read_text() == "ModifyDeviceFiles: 0\n"
    assert container.report("counter").read(Counter.RESUMES) == 1
    # And once more: what has come back can be taken again.
    again = await lab.checkpoint(container, stop=True)
    await lab.restore(again.checkpoint_id)
    assert_has_driver(container, installed.content("libcuda"), as_version="570.124.06")


async def test_by_its_hook_with_another_driver_and_a_new_bundle(lab: Lab, driver: Driver) -> None:
    bundle = lab.runc.build(COUNTER)
    add_hook(bundle, driver)
    container = lab.runc.start(bundle)
    result = await lab.checkpoint(container, stop=True)
    for library in driver.libraries:
        library.unlink()
    replacement = another(lab, bundle)
    with pytest.raises(RestoreFailed, match=r"had \S+\.so\.570\.124\.06 mounted in it"):
        await lab.restore(result.checkpoint_id, container="newer", bundle=replacement.path)
    assert lab.runc.containers() == []
    newer = install_driver(driver.directory, "580.65.06", number=ZERO)
    add_hook(replacement, newer)
    await lab.restore(result.checkpoint_id, container="newer", bundle=replacement.path)
    restored = Container(lab.runc, "newer", replacement)
    assert_has_driver(restored, newer.content("libcuda"), as_version="570.124.06")
    assert numbers(restored) == {ZERO}


async def test_by_its_hook_without_streaming(lab: Lab, driver: Driver) -> None:
    """Where CRIU's own configuration keeps it from streaming, it is told of the mounts as well."""
    file = lab.directory / "criu.conf"
    file.write_text("ghost-limit 2M\n")
    bundle = lab.runc.build(COUNTER, annotations={"org.criu.config": str(file)})
    add_hook(bundle, driver)
    container = lab.runc.start(bundle)
    result = await lab.checkpoint(container)
    assert not result.streamed
    container.delete()
    await lab.restore(result.checkpoint_id)
    assert_has_driver(container, driver.content("libcuda"), as_version="570.124.06")
