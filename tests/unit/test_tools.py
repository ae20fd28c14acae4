"""The programs that the agent stands on: which are found, and who misses one that is not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.checkpoint import CheckpointRequest, MemberRequest
from agent.config import Tools, find_tools
from agent.errors import MissingTool
from agent.host import runc
from agent.host.facts import host_facts
from agent.store.file import FileStore
from agent.targets import Kind, ProcessTarget, RuncTarget


@pytest.fixture
def criu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All there is on this machine."""
    program = tmp_path / "criu"
    program.write_text("#!/bin/sh\necho Version: 9.9\n")
    program.chmod(0o700)
    monkeypatch.setenv("CHECKPOINT_AGENT_CRIU", str(program))
    monkeypatch.delenv("CHECKPOINT_AGENT_RUNC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    return program


async def test_no_runc(criu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = find_tools()
    assert tools == Tools(criu, None)
    with pytest.raises(MissingTool, match=r"^runc: runc is not there or not executable$"):
        tools.require_runc()
    monkeypatch.setenv("CHECKPOINT_AGENT_RUNC", "/no/such/runc")
    assert find_tools().runc is None
    with pytest.raises(MissingTool, match=r"^runc: /no/such/runc is not there"):
        tools.require_runc()
    host = await host_facts(tools)
    assert (host.criu, host.runc) == ("9.9", None)


def test_a_runc(criu: Path) -> None:
    program = criu.with_name("runc")
    program.symlink_to(criu)
    assert find_tools() == Tools(criu, program)
    assert find_tools().require_runc() == program


def test_no_criu(criu: Path) -> None:
    criu.unlink()
    with pytest.raises(MissingTool, match=r"^criu: "):
        find_tools()


async def test_a_container_that_cannot_be_deleted_is_left_alone(criu: Path, tmp_path: Path) -> None:
    state = tmp_path / "root/c1/state.json"
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({}))
    with pytest.raises(MissingTool, match="runc"):
        await runc.delete(Tools(criu, None), RuncTarget("c1", tmp_path / "root"))
    assert state.exists()


@pytest.mark.parametrize(
    ("target", "kind", "stop", "needs"),
    [
        (ProcessTarget(7), Kind.SIMPLE, True, False),
        (RuncTarget("c1"), Kind.SIMPLE, False, True),
        (RuncTarget("c1"), Kind.ROOTFS_ONLY, False, False),
        (RuncTarget("c1"), Kind.ROOTFS_ONLY, True, True),
    ],
)
def test_who_needs_runc(
    tmp_path: Path, target: ProcessTarget | RuncTarget, kind: Kind, stop: bool, needs: bool
) -> None:
    members = (MemberRequest(target),)
    request = CheckpointRequest(members, FileStore(tmp_path), kind=kind, stop=stop)
    assert request.needs_runc is needs
