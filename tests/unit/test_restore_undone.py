"""A restore that fails, and whose undoing fails too: both are told, and it stays in the journal."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
from pathlib import Path

import pytest

from agent.config import Tools
from agent.errors import (
    MissingTool,
    NetworkStuck,
    RestoreFailed,
    RestoreNotUndone,
    StoreFailed,
)
from agent.manifest import MANIFEST, to_bytes
from agent.operation import journal
from agent.restore import RestoreRequest, restore
from agent.restore.restoration import not_undone
from agent.store.memory import MemoryStore
from tests.checkpoints import ID, replace, write_checkpoint

# Restores so many containers as far as runc's directory of each; the next one fails, and then it
# is gone, so that nothing can be deleted any more.
RUNC = """#!/bin/sh
while [ $# -gt 1 ]; do
    case $1 in
    --root) root=$2 ;;
    --pid-file) file=$2 ;;
    --log) log=$2 ;;
    esac
    shift
done
mkdir -p "$root/$1"
if [ $(ls "$root" | wc -l) -gt {good} ]; then
    rm {self}
    echo 'level=error msg="criu has had enough"' > "$log"
    exit 1
fi
sleep 1000 < /dev/null &
echo $! | tee "$file" > {self}.pid
"""


def fake_runc(path: Path, good: int) -> Tools:
    path.write_text(RUNC.format(good=good, self=shlex.quote(str(path))))
    path.chmod(0o700)
    return Tools(Path("/nonexistent"), path)


def checkpointed(directory: Path, members: int) -> MemoryStore:
    """A checkpoint of containers whose bundles are there."""
    store = MemoryStore("undone")
    config = json.dumps({"root": {"path": "rootfs"}}).encode()
    made = write_checkpoint(store, *({"config.json": config} for _ in range(members)))
    for member in made.members:
        (directory / member.name / "rootfs").mkdir(parents=True)
        (directory / member.name / "config.json").write_bytes(config)
    moved = [one.model_copy(update={"bundle": str(directory / one.name)}) for one in made.members]
    replace(store, f"{ID}/{MANIFEST}", to_bytes(made.model_copy(update={"members": moved})))
    return store


@pytest.mark.parametrize("good", [0, 1], ids=["itself", "and one before it"])
async def test_both_failures_are_told(tmp_path: Path, good: int) -> None:
    store = checkpointed(tmp_path / "bundles", good + 1)
    tools = fake_runc(tmp_path / "runc", good)
    request = RestoreRequest(store, ID, runc_root=tmp_path / "root")
    with pytest.raises(RestoreNotUndone) as raised:
        await restore(request, tools=tools, state_dir=tmp_path / "state")
    if good:
        os.kill(int((tmp_path / "runc.pid").read_text()), signal.SIGKILL)
    error = raised.value
    assert (error.target, error.reason) == (f"c{good}", "criu has had enough")
    # Of each container that is there.
    assert error.left == "; ".join(["runc: No such file or directory"] * (good + 1))
    assert str(error).endswith(f"; not undone: {error.left}")
    assert (error.code, error.exit_code) == ("restore_failed", 8)
    assert len(journal.records(tmp_path / "state")) == 1


@pytest.mark.parametrize("left", [OSError(16, "Device or resource busy"), MissingTool("runc", "?")])
def test_whatever_was_undone_in_vain(left: OSError | MissingTool) -> None:
    """An error of the system's, too, which nobody would take for the agent's own."""
    told = not_undone("c0", StoreFailed("read", "memory://x", "it is away"), left)
    assert isinstance(told, RestoreNotUndone)
    assert "it is away" in str(told)
    assert str(left) in str(told)
    assert "given up" in str(not_undone("c0", asyncio.CancelledError(), left))


def test_a_network_is_all_that_is_left() -> None:
    stuck, cause = NetworkStuck("n", "it is busy"), RestoreFailed("c0", "criu has had enough")
    assert isinstance(not_undone("c0", cause, stuck), NetworkStuck)
    # It says that all else was undone.
    nested = not_undone("c0", not_undone("c0", cause, OSError(5, "I/O error")), stuck)
    assert isinstance(nested, RestoreNotUndone)
    assert "it is busy" in nested.left
