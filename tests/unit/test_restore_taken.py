"""Somebody makes a container while one of its name is being restored: theirs is left alone."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.config import Tools
from agent.errors import AlreadyExists, RestoreFailed, StoreFailed
from agent.frame import Data
from agent.manifest import MANIFEST, to_bytes
from agent.operation import journal
from agent.restore import RestoreRequest, restore
from agent.store.memory import MemoryStore
from tests.checkpoints import ID, replace, write_checkpoint
from tests.runc_states import write_state

# Writes down what it is called for. `script` is what becomes of a restore.
RUNC = """#!/bin/sh
while [ $# -gt 1 ]; do
    case $1 in
    --root) root=$2 ;;
    --log) log=$2 ;;
    --pid-file) file=$2 ;;
    restore | delete) verb=$1 ;;
    esac
    shift
done
echo "$verb $1" >> {calls}
[ "$verb" = restore ] || {{ rm -r "$root/$1"; exit 0; }}
{script}
"""


class Racing(MemoryStore):
    """As soon as a restore of it has begun, something happens at the next read."""

    def __init__(self, state_dir: Path, happens: Callable[[], None]) -> None:
        super().__init__(f"racing{id(self)}")
        self.state_dir, self.happens = state_dir, happens

    def read(self, path: str, offset: int, length: int) -> Data:
        if "stream" in path and journal.records(self.state_dir):
            self.happens()
        return super().read(path, offset, length)


class Restores:
    """Restores of c0, c1, ... into a runc root of their own, by a runc that is a script."""

    def __init__(self, directory: Path) -> None:
        self.state_dir, self.root = directory / "state", directory / "root"
        self._directory = directory

    def calls(self) -> list[str]:
        """What runc was called for."""
        calls = self._directory / "calls"
        return calls.read_text().splitlines() if calls.exists() else []

    async def run(self, script: str, happens: Callable[[], None], members: int = 1) -> None:
        """Restore; ``script`` is what runc does, ``happens`` what others do before it starts."""
        runc = self._directory / "runc"
        calls = shlex.quote(str(self._directory / "calls"))
        runc.write_text(RUNC.format(calls=calls, script=script))
        runc.chmod(0o700)
        request = RestoreRequest(self._checkpoint(happens, members), ID, runc_root=self.root)
        tools = Tools(Path("/nonexistent"), runc)
        await restore(request, tools=tools, state_dir=self.state_dir)

    def _checkpoint(self, happens: Callable[[], None], members: int) -> MemoryStore:
        store = Racing(self.state_dir, happens)
        config = json.dumps({"root": {"path": "rootfs"}}).encode()
        images = {"config.json": config, "descriptors.json": b"[]"}
        made = write_checkpoint(store, *(images for _ in range(members)))
        for member in made.members:
            (self._directory / member.name / "rootfs").mkdir(parents=True)
            (self._directory / member.name / "config.json").write_bytes(config)
        moved = [
            one.model_copy(update={"bundle": str(self._directory / one.name)})
            for one in made.members
        ]
        replace(store, f"{ID}/{MANIFEST}", to_bytes(made.model_copy(update={"members": moved})))
        return store


@pytest.fixture
def restores(tmp_path: Path) -> Restores:
    return Restores(tmp_path)


def nothing() -> None:
    """Nobody does anything."""


async def test_while_images_are_read(restores: Restores) -> None:
    container = restores.root / "c0"
    with pytest.raises(AlreadyExists):
        await restores.run("exit 1", lambda: container.mkdir(parents=True, exist_ok=True))
    assert container.exists()
    assert restores.calls() == []
    assert journal.records(restores.state_dir) == []


async def test_before_the_store_fails(restores: Restores) -> None:
    container = restores.root / "c0"

    def fail() -> None:
        container.mkdir(parents=True, exist_ok=True)
        raise StoreFailed("read", "memory://racing", "it is away")

    with pytest.raises(StoreFailed):
        await restores.run("exit 1", fail)
    assert container.exists()
    assert restores.calls() == []


async def test_while_a_member_before_it_is_restored(restores: Restores) -> None:
    """That one is removed: runc has begun to make it."""
    script = 'mkdir -p "$root/c0" "$root/c1"; echo $$ > "$file"'
    with pytest.raises(AlreadyExists, match="c1"):
        await restores.run(script, nothing, members=2)
    assert restores.calls() == ["restore c0", "delete c0"]
    assert (restores.root / "c1").exists()


async def test_between_the_last_look_and_runcs(restores: Restores) -> None:
    script = """mkdir -p "$root/$1"
    echo 'level=error msg="container with given ID already exists"' > "$log"
    exit 1"""
    with pytest.raises(AlreadyExists):
        await restores.run(script, nothing)
    assert restores.calls() == ["restore c0"]
    assert (restores.root / "c0").exists()


@pytest.fixture
def task() -> Iterator[int]:
    """The first process of another container; nobody ends it."""
    with subprocess.Popen(["sleep", "1000"]) as made:
        yield made.pid
        assert made.poll() is None
        made.kill()


@pytest.mark.parametrize("theirs", [True, False])
async def test_after_a_failure(restores: Restores, task: int, theirs: bool) -> None:
    """Whoever keeps it up has tried again and again. What is half-made is what runc has left."""
    state = write_state(restores.root / "theirs", task) / "state.json"
    done = f'cp {shlex.quote(str(state))} "$root/$1"' if theirs else ":"
    script = f'mkdir -p "$root/$1"; (sleep 0.3; {done}) > /dev/null & exit 1'
    with pytest.raises(RestoreFailed):
        await restores.run(script, nothing)
    assert (restores.root / "c0").exists() == theirs
    assert restores.calls() == ["restore c0", *(["delete c0"] if not theirs else [])]
