"""`checkpoint-runc`, an agent that says what a test wants, and a runc that notes its calls."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agent.host import aside
from agent.host.checkpoint_runc import install_wrapper
from tests.waiting import PATIENCE

# Restores and deletes as runc does, as far as others see; a cold start is exit status 5.
RUNC = """#!/bin/sh
for word; do
    case $word in
    --pid-file=*) pid_file=${word#*=} ;;
    restore|delete|create) command=$word ;;
    esac
done
echo "$command" >> DIRECTORY/calls
case $command in
restore) mkdir -p DIRECTORY/root/abc; echo $$ > "$pid_file" ;;
delete) rm -r DIRECTORY/root/abc ;;
create) exit 5 ;;
esac
"""

ANNOTATIONS = {
    "checkpoint-agent/restore": "x",
    "io.kubernetes.cri.container-type": "container",
    "io.kubernetes.cri.container-name": "app",
    "io.kubernetes.cri.sandbox-id": "s1",
}


class Agent:
    """One conversation; also what is left of it. ``stack`` ends all that it opens and starts."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.directory = directory
        runc, bundle = directory / "runc", directory / "bundle"
        runc.write_text(RUNC.replace("DIRECTORY", str(directory)))
        runc.chmod(0o700)
        (bundle / "rootfs").mkdir(parents=True)
        config = {"annotations": ANNOTATIONS, "root": {"path": "rootfs"}}
        (bundle / "config.json").write_text(json.dumps(config))
        (directory / "root").mkdir()
        program, path = directory / "checkpoint-runc", directory / "restore.sock"
        install_wrapper(program, socket=path, runc=runc, patience=5)
        self._listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        self._listener.bind(str(path))
        self._listener.listen()
        words = f"--root root create --bundle bundle --pid-file {directory}/pid abc".split()
        self.client = stack.enter_context(
            subprocess.Popen([program, *words], cwd=directory, stderr=subprocess.PIPE)
        )
        stack.callback(self.client.kill)
        self._listener.settimeout(PATIENCE)
        self._connected, _ = self._listener.accept()
        stack.enter_context(self._connected).settimeout(PATIENCE)
        self._lines = stack.enter_context(self._connected.makefile("rb"))
        assert "create" in self.hear()
        self.say("limit", {"seconds": 100})

    def say(self, word: str, content: object) -> None:
        self._connected.sendall(json.dumps({word: content}).encode() + b"\n")

    def hear(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._lines.readline())
        return found

    def order(self, **changed: object) -> dict[str, Any]:
        """Have it run runc; how that ended."""
        at = str(self.directory)
        words: dict[str, object] = {"images": at, "work": at, "launcher": at, "layer": None}
        self.say("run", words | {"flags": []} | changed)
        ended: dict[str, Any] = self.hear()["ended"]
        return ended

    def close(self) -> None:
        self._lines.close()
        self._connected.close()
        self._listener.close()

    def status(self) -> int:
        return self.client.wait(PATIENCE)

    def calls(self) -> list[str]:
        return (self.directory / "calls").read_text().split()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    with ExitStack() as stack:
        yield Agent(tmp_path, stack)


def test_one_that_comes_back(agent: Agent) -> None:
    ended = agent.order()
    assert (ended["status"], ended["reason"]) == (0, "")
    assert ended["pid"] > 0
    agent.say("restored", {})
    assert (agent.status(), agent.calls()) == (0, ["restore"])
    assert os.listdir(agent.directory / "root" / "abc") == ["checkpoint-restored"]


def test_what_is_aside_goes_when_it_has_come_back(agent: Agent) -> None:
    """The agent may die before it gets to that; a later cold start would put it back."""
    volume = agent.directory / "volume"
    volume.mkdir()
    agent.say("volumes", {"paths": [str(volume)]})
    (volume / aside.NAME).mkdir()
    (volume / "from-checkpoint").touch()
    agent.order()
    agent.say("restored", {})
    assert agent.status() == 0
    assert os.listdir(volume) == ["from-checkpoint"]


@pytest.mark.parametrize(("unfinished", "status"), [(False, 0), (True, 5)])
def test_an_agent_that_dies_when_runc_has_ended(
    agent: Agent, unfinished: bool, status: int
) -> None:
    """Its GPUs are not its own again without the agent: it would hang for ever."""
    agent.order(unfinished=unfinished)
    agent.close()
    assert agent.status() == status
    assert agent.calls() == (["restore", "delete", "create"] if unfinished else ["restore"])


@pytest.mark.parametrize(("word", "status"), [("cold", 5), ("failed", 1)])
def test_the_agent_decides_about_a_failure_of_this_end(
    agent: Agent, word: str, status: int
) -> None:
    """Half a pod may run already."""
    ended = agent.order(layer=str(agent.directory / "layer"))
    assert (ended["status"], ended["pid"]) == (1, 0)
    assert "its writable layer: no overlay is mounted" in ended["reason"]
    agent.say(word, {"reason": "so be it"})
    assert agent.status() == status


def test_a_runc_that_writes_no_pid(agent: Agent) -> None:
    (agent.directory / "pid").symlink_to("/dev/null")
    assert agent.order() == {"status": 0, "pid": 0, "reason": ""}
    agent.say("cold", {"reason": "so be it"})
    assert (agent.status(), agent.calls()) == (5, ["restore", "delete", "create"])
