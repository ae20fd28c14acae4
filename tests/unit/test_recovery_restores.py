"""What is done about a restore whose agent has died, or that could not be undone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.config import Tools
from agent.errors import AlreadyExists, CheckpointCorrupt, MissingTool
from agent.frame import Data
from agent.host.cuda import Cuda
from agent.manifest import MANIFEST, to_bytes
from agent.operation import journal
from agent.operation.attempt import attempt
from agent.operation.journal import Affected, Operation, Record
from agent.operation.recovery import recover
from agent.report import Phases
from agent.restore import RestoreRequest, restore
from agent.restore.gpus import GpuPlan
from agent.restore.request import RestoreTarget
from agent.restore.restoration import Restoration
from agent.restore.serving import Serving
from agent.store.memory import MemoryStore
from agent.targets import RuncTarget
from tests.checkpoints import replace, write_checkpoint
from tests.runc_states import write_state
from tests.waiting import descriptors, opened_since

NOTHING = Tools(Path("/nonexistent"), Path("/nonexistent"))


def no_tools() -> Tools:
    """There is nothing to delete."""
    raise AssertionError


def begun(state_dir: Path, *affected: Affected) -> Operation:
    record = Record("restore", journal.new_id(), "sample", "memory://x", "it", affected)
    return journal.begin(state_dir, record)


@pytest.fixture
def task() -> Iterator[subprocess.Popen[bytes]]:
    """What CRIU has made."""
    with subprocess.Popen(["sleep", "1000"]) as made:
        yield made
        made.kill()


def ended(task: subprocess.Popen[bytes]) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        return task.wait(0.2) is not None
    return False


@pytest.mark.parametrize("of_engine", [True, False])
async def test_a_cold_start_in_the_place_of_a_restore(tmp_path: Path, of_engine: bool) -> None:
    """runc has begun to create it: there is a directory, and nothing in it yet."""
    (tmp_path / "runc" / "c1").mkdir(parents=True)
    affected = Affected("c1", str(tmp_path / "runc"), of_engine=of_engine)
    operation = begun(tmp_path, affected)
    operation.note_begun(True)
    operation.release()
    tools = no_tools if of_engine else lambda: NOTHING
    [found] = await recover(tools=tools, state_dir=tmp_path)
    assert (found.problem is None) == of_engine


@pytest.mark.parametrize("whose", ["noted", "written", "nobody's", "an earlier one's"])
async def test_one_of_two_runs(tmp_path: Path, task: subprocess.Popen[bytes], whose: str) -> None:
    """It goes by its first process: its owner may have started it since."""
    root, runc = tmp_path / "root", tmp_path / "runc"
    runc.write_text(f"#!/bin/sh\necho $* >> {shlex.quote(str(tmp_path / 'calls'))}\n")
    runc.chmod(0o700)
    write_state(root / "web", task.pid)
    operation = begun(tmp_path, Affected("web", str(root)), Affected("db", str(root)))
    place, _ = operation.workplaces(2)
    place.note_begun(True)
    if whose == "noted":
        place.note_root(task.pid)
    elif whose != "nobody's":
        place.pid_file.write_text(str(task.pid))
    if whose == "an earlier one's":
        os.utime(place.pid_file, (0, 0))
    operation.release()
    [found] = await recover(tools=lambda: Tools(runc, runc), state_dir=tmp_path)
    assert found.removed == (whose in ("noted", "written"))
    assert (tmp_path / "calls").exists() == found.removed
    assert found.problem is None
    assert journal.records(tmp_path) == []


async def test_one_that_was_made_before_runc_was_started(tmp_path: Path) -> None:
    """Also while it is being made: there is a directory, and nothing in it yet."""
    (tmp_path / "root" / "web").mkdir(parents=True)
    begun(tmp_path, Affected("web", str(tmp_path / "root"))).release()
    [found] = await recover(tools=no_tools, state_dir=tmp_path)
    assert (found.removed, found.problem) == (False, None)


@pytest.mark.parametrize("waiting", [True, False])
async def test_one_that_was_never_brought_back_onto_its_gpus(
    tmp_path: Path, task: subprocess.Popen[bytes], waiting: bool
) -> None:
    operation = begun(tmp_path, Affected())
    operation.note_root(task.pid)
    operation.note_waiting(True)
    (operation.work / "stats-restore").touch()
    operation.note_waiting(waiting)
    operation.release()
    [found] = await recover(tools=no_tools, state_dir=tmp_path)
    assert found.removed == waiting
    assert ended(task) == waiting


async def test_a_recovery_that_is_cancelled(tmp_path: Path) -> None:
    before = descriptors()
    runc = tmp_path / "runc"
    runc.write_text("#!/bin/sh\nexec sleep 1000\n")
    runc.chmod(0o700)
    (tmp_path / "root" / "c1").mkdir(parents=True)
    for _ in range(2):
        operation = begun(tmp_path, Affected("c1", str(tmp_path / "root")))
        operation.note_begun(True)
        operation.release()
    with pytest.raises(TimeoutError):
        # 1 s of it passes before runc is called.
        async with asyncio.timeout(1.5):
            await recover(tools=lambda: Tools(runc, runc), state_dir=tmp_path)
    left = journal.abandoned(tmp_path)
    assert len(left) == 2
    for _, operation in left:
        operation.remove()
    assert opened_since(before) == {}


async def test_one_that_cannot_be_undone(tmp_path: Path, task: subprocess.Popen[bytes]) -> None:
    """Its processes end all the same, and it stays in the journal."""
    (tmp_path / "root" / "c0").mkdir(parents=True)
    store = MemoryStore("recovery")
    manifest = write_checkpoint(store, {"inventory.img": b"i"})
    operation = begun(tmp_path, Affected("c0", str(tmp_path / "root")))
    operation.note_begun(True)
    operation.note_root(task.pid)
    target = RestoreTarget(manifest.members[0], RuncTarget("c0", tmp_path / "root"))
    plan = GpuPlan(Cuda(), frozenset(), {})
    restoration = Restoration(
        store, manifest, target, operation, tools=NOTHING, phases=Phases(), gpus=plan
    )
    with pytest.raises(MissingTool):
        await restoration.undo()
    operation.remove()
    assert ended(task)
    [(_, left)] = journal.abandoned(tmp_path)
    left.remove()


class Racing(MemoryStore):
    """While it is read, another one makes a container."""

    def __init__(self, name: str, container: Path) -> None:
        super().__init__(name)
        self.container = container

    def read(self, path: str, offset: int, length: int) -> Data:
        if "stream" in path:
            self.container.mkdir(parents=True, exist_ok=True)
        return super().read(path, offset, length)


async def test_one_that_was_made_meanwhile_is_left_alone(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    (bundle / "rootfs").mkdir(parents=True)
    config = json.dumps({"root": {"path": "rootfs"}}).encode()
    (bundle / "config.json").write_bytes(config)
    store = Racing("racing", tmp_path / "root" / "c0")
    made = write_checkpoint(store, {"config.json": config})
    member = made.members[0].model_copy(update={"bundle": str(bundle)})
    made = made.model_copy(update={"members": [member]})
    replace(store, f"{made.checkpoint_id}/{MANIFEST}", to_bytes(made))
    request = RestoreRequest(store, made.checkpoint_id, runc_root=tmp_path / "root")
    with pytest.raises(AlreadyExists):
        await restore(request, tools=NOTHING, state_dir=tmp_path / "state")
    assert store.container.exists()
    assert list((tmp_path / "state").glob("operations/*")) == []


async def test_one_that_does_not_end_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when whoever waits for its end is in a hurry."""
    monkeypatch.setattr("agent.operation.attempt.ROLLBACK_TIMEOUT", 0.5)
    operation = begun(tmp_path)
    hung_up = asyncio.Event()
    trying = asyncio.create_task(
        attempt(["sleep", "1000"], operation, failed=asyncio.Event(), hang_up=hung_up.set)
    )
    await asyncio.sleep(0.1)
    trying.cancel()
    await hung_up.wait()
    trying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trying
    operation.remove()
    assert operation.directory.exists()


async def test_descriptors_of_any_size(tmp_path: Path) -> None:
    """runc reads them from a file, and a manifest may say anything."""
    store = MemoryStore("descriptors")
    manifest = write_checkpoint(store, {"descriptors.json": bytes(17 << 20)})
    operation = begun(tmp_path)
    serving = Serving(store, manifest, manifest.members[0], operation, Phases())

    async def never() -> int:
        raise AssertionError

    with pytest.raises(CheckpointCorrupt, match=r"descriptors\.json has 17825792 bytes"):
        await serving.run(never)
    operation.remove()
