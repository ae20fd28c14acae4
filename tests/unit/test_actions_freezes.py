"""Pods that callers keep frozen, whose cgroups are files of the test's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.actions import Freezes
from agent.targets import RuncTarget
from tests.pod_states import Node
from tests.runtime_nodes import soon


async def test_a_thaw_that_fails_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also when nobody asks for it: the limit is over."""
    node, cgroup = Node(tmp_path), tmp_path / "cgroup"
    container = node.containerd()
    path = node.runc_root / container / "state.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps({**state, "cgroup_paths": {"freezer": str(cgroup)}}))
    cgroup.mkdir()
    control = cgroup / "freezer.state"
    control.write_text("THAWED")
    freezes = Freezes(state_dir=tmp_path / "state", runc_roots=[node.runc_root], limit_seconds=60)
    await freezes.freeze(RuncTarget(container, node.runc_root), 0.2)
    assert control.read_text() == "FROZEN"
    control.unlink()
    control.mkdir()
    # By who has held it, and by who looks whether it was frozen again meanwhile.
    await soon(lambda: caplog.text.count("not thawed") == 2)
    assert "IsADirectoryError" in caplog.text
    await freezes.stop()
