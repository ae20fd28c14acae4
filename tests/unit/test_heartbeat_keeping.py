"""What newer heartbeats replace is deleted, but nothing that a restore reads or is to read."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.heartbeat.keeping import keep_newest
from agent.messages.model import ActionRequest, RestoreSpec
from agent.operation import journal
from agent.retention import Owner, new_id
from agent.store import checkpoint_path
from agent.store.file import FileStore
from tests.fakes.held_worker import executing
from tests.unit.test_retention import put

WEB = Owner("prod", "default", "web", None)


async def test_what_restores_need_stays_by_whatever_name_they_call_it(tmp_path: Path) -> None:
    there, state = FileStore(tmp_path / "store"), tmp_path / "state"
    (tmp_path / "link").symlink_to(tmp_path / "store")
    plain, linked, read, unused, newest = [put(there, made, WEB) for made in range(5)]
    async with executing(state) as (executor, worker):
        for name, path in {
            "a": f"{tmp_path}/store/{plain}",
            "b": f"{tmp_path}/link/{linked}",
            # Of no checkpoint, and none of anybody's business.
            "c": "file:///",
            "d": f"{tmp_path}/elsewhere/{new_id(WEB)}",
        }.items():
            await executor.submit(ActionRequest(name, RestoreSpec(path)))
        reading = journal.begin(
            state,
            journal.Record(
                kind="restore",
                operation=journal.new_id(),
                checkpoint_id=read,
                store=FileStore(tmp_path / "link").url,
                target="container web",
            ),
        )
        path = checkpoint_path(there, newest)
        assert await keep_newest(path, 1, executor, state) == 1
        assert sorted(there.directories()) == sorted([plain, linked, read, newest])
        reading.remove()
        worker.release.set()
        for name in ("a", "b", "c", "d"):
            await executor.wait(name)
        assert await keep_newest(path, 1, executor, state) == 3
        assert list(there.directories()) == [newest]
        assert unused not in there.directories()


async def test_a_pod_that_is_only_partly_up_keeps_its_whole_checkpoints_and_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    there = FileStore(tmp_path / "store")
    async with executing(tmp_path / "state") as (executor, _):

        async def beat(made: float, *members: str) -> str:
            name = put(there, made, WEB, members=members)
            await keep_newest(checkpoint_path(there, name), 2, executor, tmp_path / "state")
            return name

        whole = {await beat(made, "app", "sidecar") for made in range(3)} & {*there.directories()}
        assert "lacks" not in caplog.text
        partial = [await beat(made, "sidecar") for made in range(3, 7)]
        assert {*there.directories()} == whole | {*partial[-2:]}
        assert caplog.text.count("lacks") == 1
        again = {await beat(made, "app", "sidecar") for made in range(7, 9)}
        assert {*there.directories()} == again
