"""What a dead agent has frozen runs again, also while a program that it started hangs."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from agent.config import Tools
from agent.host import process
from agent.host.cgroup import Freezer
from agent.operation.journal import Affected, Record, abandoned, begin
from agent.operation.recovery import recover, thaw_abandoned
from tests.cgroups import Echo, echo
from tests.cli_process import ROOT
from tests.waiting import eventually

pytestmark = pytest.mark.root

TCP_REPAIR = 19

# Begins an operation, leaves a child with its lock behind, freezes, and waits to be killed.
PROGRAM = """
import json, subprocess, sys
from pathlib import Path
from agent.host.cgroup import Freezer
from agent.operation.journal import Affected, Record, begin
state, fields = Path(sys.argv[1]), json.loads(sys.argv[2])
affected = tuple(Affected(**each) for each in fields.pop("affected"))
operation = begin(state, Record(**fields, affected=affected))
quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
child = subprocess.Popen(["sleep", "1000"], pass_fds=[operation.lock], **quiet)
for each in affected:
    Freezer(Path(each.freezer), each.freezer_version).freeze()
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=[1, 2], ids=["v1", "v2"])
def tasks(request: pytest.FixtureRequest) -> Iterator[list[Echo]]:
    with echo(request.param) as one, echo(request.param) as other:
        yield [one, other]


def record(freezers: list[Freezer]) -> Record:
    """A freeze of several cgroups."""
    affected = tuple(Affected(freezer=str(one.path), freezer_version=one.version)
                     for one in freezers)  # fmt: skip
    return Record("freeze", "frozen-by-a-caller", "", "", "pod default/web", affected)


@contextmanager
def frozen_by_another(state_dir: Path, made: Record) -> Iterator[tuple[int, int]]:
    """The pids of an agent that has frozen it all, and of a program that it started."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, state_dir, json.dumps(asdict(made))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as agent:
        assert agent.stdout is not None
        orphan = int(agent.stdout.readline())
        try:
            yield agent.pid, orphan
        finally:
            agent.kill()
            with suppress(ProcessLookupError):
                os.kill(orphan, signal.SIGKILL)


def kill(pid: int) -> None:
    """What no process can prepare for; it is dead when this returns, and still a zombie."""
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def no_tools() -> Tools:
    """There is nothing to delete."""
    raise AssertionError


async def test_all_of_it_runs_again(tmp_path: Path, tasks: list[Echo]) -> None:
    made = record([task.freezer for task in tasks])
    with frozen_by_another(tmp_path, made) as (agent, _):
        assert thaw_abandoned(tmp_path) == set()
        assert not any(task.runs() for task in tasks)

        kill(agent)

        # The orphan holds the operation's lock: nobody cleans up, but everything runs.
        assert abandoned(tmp_path) == []
        assert thaw_abandoned(tmp_path) == {made.operation}
        assert all(task.runs() for task in tasks)
        assert await recover(tools=no_tools, state_dir=tmp_path) == []

    eventually(lambda: _forgotten(tmp_path), "the orphan's lock being free")


def _forgotten(state_dir: Path) -> bool:
    """Whether nobody holds the operation any more; then it is removed."""
    found = abandoned(state_dir)
    for _, operation in found:
        operation.remove()
    return bool(found)


async def test_one_that_cannot_be_thawed_keeps_no_other_frozen(
    tmp_path: Path, tasks: list[Echo]
) -> None:
    """As on a kernel that refuses the write."""
    odd = tmp_path / "odd"
    (odd / "cgroup.freeze").mkdir(parents=True)
    state = tmp_path / "state"
    made = record([tasks[0].freezer])
    with frozen_by_another(state, made) as (agent, orphan):
        path = state / "operations" / made.operation / "record.json"
        first = f'{{"freezer": "{odd}", "freezer_version": 2}}, '
        path.write_text(path.read_text().replace('"affected": [', f'"affected": [{first}'))
        os.kill(orphan, signal.SIGKILL)
        kill(agent)

        thaw_abandoned(state)

        assert tasks[0].runs()
        eventually(lambda: _forgotten(state), "the orphan's lock being free")


async def test_what_cannot_be_thawed_keeps_nothing_else_undone(tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    (odd / "cgroup.freeze").mkdir(parents=True)
    stream = tmp_path / "store" / "x" / "stream-000"
    stream.parent.mkdir(parents=True)
    stream.touch()
    made = replace(
        record([Freezer(odd, 2)]), kind="checkpoint", checkpoint_id="x", store=f"file://{tmp_path}/store"
    )  # fmt: skip
    left = _left_behind(tmp_path, made)

    [found] = await recover(tools=no_tools, state_dir=tmp_path)

    assert found.problem
    assert found.removed
    assert not stream.exists()
    assert left.exists()


async def test_what_an_agent_has_frozen_again_stays_so(tmp_path: Path, tasks: list[Echo]) -> None:
    """A dead one's remains may wait for days for their store; a checkpoint meanwhile is whole."""
    freezer = tasks[0].freezer
    left = _left_behind(tmp_path, record([freezer]))
    again = replace(record([freezer]), operation="again", target="another name of it")
    with frozen_by_another(tmp_path, again):
        assert thaw_abandoned(tmp_path) == set()
        assert await recover(tools=no_tools, state_dir=tmp_path) == []
        assert not tasks[0].runs()
        assert left.exists()


async def test_it_is_thawed_once(tmp_path: Path, tasks: list[Echo]) -> None:
    """Who pauses the container while the store does not answer wants it to stay paused."""
    freezer, store = tasks[0].freezer, f"file://{tmp_path}/{'n' * 300}"
    made = replace(record([freezer]), kind="checkpoint", checkpoint_id="x", store=store)
    left = _left_behind(tmp_path, made)
    freezer.freeze()
    [first] = await recover(tools=no_tools, state_dir=tmp_path)
    assert (first.thawed, bool(first.problem)) == (True, True)
    assert tasks[0].runs()

    freezer.freeze()
    [second] = await recover(tools=no_tools, state_dir=tmp_path)
    assert (second.thawed, bool(second.problem)) == (False, True)
    assert not tasks[0].runs()
    assert left.exists()
    freezer.thaw()


async def test_sockets_of_what_has_no_freezer(tmp_path: Path) -> None:
    """Of a process tree, or a container that its owner had paused, CRIU dumps connections too."""
    store = f"file://{tmp_path}/{'n' * 300}"
    found = process.stat(os.getpid())
    assert found is not None
    affected = (Affected(root=(os.getpid(), found.started)), Affected(root=(os.getpid(), 1)))
    made = Record("checkpoint", "x", "x", store, "process 1", affected)
    _left_behind(tmp_path, made)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
        server.accept()[0] as ours,
    ):
        ours.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        [first] = await recover(tools=no_tools, state_dir=tmp_path)
        assert (first.thawed, bool(first.problem)) == (False, True)
        client.sendall(b"it works")
        assert ours.recv(100) == b"it works"
        # Who dumps it again meanwhile is not disturbed.
        ours.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        await recover(tools=no_tools, state_dir=tmp_path)
        assert ours.getsockopt(socket.IPPROTO_TCP, TCP_REPAIR) == 1


async def test_without_descriptors(tmp_path: Path, tasks: list[Echo]) -> None:
    """No lock of what was found until then stays behind."""
    for name in ("a", "b"):
        _left_behind(tmp_path, replace(record([tasks[0].freezer]), operation=name))
    # The directory above, the first one's lock and its record; not the second one's.
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with pytest.raises(OSError, match="Too many open files"), _descriptors_left(2):
        abandoned(tmp_path)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits

    found = abandoned(tmp_path)
    assert len(found) == 2
    for _, operation in found:
        operation.remove()


@contextmanager
def _descriptors_left(count: int) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    first = os.open("/dev/null", os.O_RDONLY)
    os.close(first)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first + count, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def _left_behind(state_dir: Path, made: Record) -> Path:
    """The directory of an operation whose agent is gone."""
    operation = begin(state_dir, made)
    operation.release()
    return operation.directory
