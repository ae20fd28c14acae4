"""Directories are removed without what is mounted in them: a killed CRIU leaves the machine's."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.config import find_tools
from agent.host import runc as host_runc
from agent.host.mounts import mounts_below
from agent.operation import journal
from agent.targets import RuncTarget
from bench.bundle import COUNTER
from bench.leftovers import unmount_below
from bench.runc import RuncRoot

pytestmark = [pytest.mark.root, pytest.mark.criu]

RECORD = journal.Record("restore", journal.new_id(), "c", "memory://m", "t")


@contextmanager
def mounted(source: Path, target: Path) -> Iterator[None]:
    """``source`` can be seen at ``target`` too."""
    target.mkdir(parents=True)
    subprocess.run(["mount", "--bind", source, target], check=True)
    try:
        yield
    finally:
        unmount_below(target.parent)


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A directory with something in it."""
    directory = tmp_path / "precious"
    (directory / "empty").mkdir(parents=True)
    (directory / "file").write_text("content")
    return directory


@pytest.mark.parametrize("name", ["yard", "a yard\twith blanks", "y\\ard", "yärd"])
def test_an_operation_is_removed_without_what_is_mounted_in_it(
    tmp_path: Path, precious: Path, name: str
) -> None:
    operation = journal.begin(tmp_path / "state", RECORD)
    yard = operation.work / name
    with mounted(precious, yard), mounted(precious, yard / "empty" / "inner"):
        assert mounts_below(operation.directory) == [yard / "empty" / "inner", yard]
        operation.remove()
        assert mounts_below(operation.directory) == []
    assert not operation.directory.exists()
    assert (precious / "file").read_text() == "content"
    assert (precious / "empty").is_dir()


async def test_a_container_is_deleted_without_what_is_mounted_in_its_state(
    runc: RuncRoot, precious: Path
) -> None:
    # `runc restore` mounts the root filesystem there while it works.
    container = runc.start(runc.build(COUNTER))
    target = RuncTarget(container.id, runc.path)
    with mounted(precious, runc.path / container.id / "criu-root"):
        await host_runc.delete(find_tools(), target)
    assert container.status() == "absent"
    assert (precious / "file").read_text() == "content"
