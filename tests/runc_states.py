"""What runc writes down of a container, as far as the agent reads it."""

from __future__ import annotations

import json
from pathlib import Path

from agent.host import process


def write_state(directory: Path, pid: int) -> Path:
    """runc's directory of a container whose first process lives."""
    found = process.stat(pid)
    assert found is not None
    directory.mkdir(parents=True, exist_ok=True)
    state = {
        "init_process_pid": pid,
        "init_process_start": found.started,
        "config": {"labels": ["bundle=/nonexistent"]},
        "cgroup_paths": {},
    }
    (directory / "state.json").write_text(json.dumps(state))
    return directory
