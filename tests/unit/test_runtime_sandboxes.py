"""What is decided for a pod outlives the agent, and goes with the pod."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.runtime.begun import Begun
from agent.runtime.sandboxes import Container, Sandboxes, State
from agent.targets import PodRef

POD = PodRef("u1", "default", "web")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "restores"


def _loaded(directory: Path, policy: str = "cold") -> Sandboxes:
    made = Sandboxes(directory, policy, Begun(directory.with_name("begun")))
    made.load()
    return made


def test_it_is_there_after_a_restart(directory: Path) -> None:
    sandbox = _loaded(directory).of("s1", POD)
    sandbox.decision.path, sandbox.decision.volumes = "s3://b/c", {"shm/shm"}
    sandbox.keep()
    sandbox.note("app", Container(state="restored", container_id="c1", pid=7))
    again = _loaded(directory, "fail").of("s1", POD)
    assert (again.pod, again.decision.path, again.decision.volumes) == (
        POD, "s3://b/c", {"shm/shm"},
    )  # fmt: skip
    assert again.has_restored
    assert again.containers["app"].pid == 7
    assert (directory / "policy").read_text() == "fail"
    assert directory.stat().st_mode & 0o77 == 0


def test_a_cold_start_without_an_agent_is_the_pods(directory: Path) -> None:
    (directory / "s1").mkdir(parents=True)
    record = {"state": "cold", "container_id": "c1", "reason": "no agent listens"}
    (directory / "s1" / "app.json").write_text(json.dumps(record))
    assert _loaded(directory).of("s1", POD).decision.cold == "no agent listens"


def test_what_the_checkpoint_has_not_is_no_decision(directory: Path) -> None:
    """An init container has started cold, and the agent is restarted before the others come."""
    sandbox = _loaded(directory).of("s1", POD)
    container = Container(state="cold", container_id="c1", reason="no member", path="s3://b/c")
    sandbox.note("init", container)
    assert _loaded(directory).of("s1", POD).decision.cold is None


@pytest.mark.parametrize(("marked", "state"), [(True, "restored"), (False, "failed")])
def test_what_was_under_way_when_an_agent_died(
    directory: Path, tmp_path: Path, marked: bool, state: str
) -> None:
    container = Container(state="restoring", container_id="c1", root=str(tmp_path))
    _loaded(directory).of("s1", POD).note("app", container)
    if marked:
        (tmp_path / "c1").mkdir()
        (tmp_path / "c1" / "checkpoint-restored").touch()
    assert _loaded(directory).of("s1", POD).containers["app"].state == state
    # A `checkpoint-runc` without an agent reads the file, and never refuses a restart.
    written = json.loads((directory / "s1" / "app.json").read_text())["state"]
    assert written == ("restored" if marked else "restoring")


@pytest.mark.parametrize("state", ["restoring", "failed", "restored"])
def test_a_cold_start_that_nobody_was_asked_about(directory: Path, state: State) -> None:
    """What has come back stays so."""
    sandbox = _loaded(directory).of("s1", POD)
    sandbox.note("app", Container(state=state, container_id="c1"))
    record = {"state": "cold", "container_id": "c1", "reason": "the agent gave it up"}
    (directory / "s1" / "app.json").write_text(json.dumps(record))
    sandbox.catch_up()
    restored = state == "restored"
    assert sandbox.containers["app"].state == ("restored" if restored else "cold")
    assert sandbox.decision.cold == (None if restored else "the agent gave it up")


def test_a_restart_that_nobody_was_asked_about(directory: Path) -> None:
    """What has come back was no part of the decision, and runs no more."""
    sandbox = _loaded(directory).of("s1", POD)
    for name in ("app", "side"):
        sandbox.note(name, Container(state="restored", container_id=name))
    known = json.loads((directory / "s1" / "app.json").read_text())
    (directory / "s1" / "app.json").write_text(json.dumps({**known, "again": True}))
    sandbox.catch_up()
    assert sandbox.runs_restored
    (directory / "s1" / "side.json").write_text(json.dumps({**known, "again": True}))
    sandbox.catch_up()
    assert (sandbox.runs_restored, sandbox.has_restored) == (False, True)
    # An agent that is started later learns it from the same files.
    assert not _loaded(directory).of("s1", POD).runs_restored


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"state": "?"}', '{"state": "cold"}', "\0" * 100, "[" * 99_999]
)
def test_files_that_say_nothing(directory: Path, content: str) -> None:
    (directory / "s1").mkdir(parents=True)
    for name in ("_pod.json", "app.json"):
        (directory / "s1" / name).write_text(content)
    sandbox = _loaded(directory).of("s1", POD)
    assert (sandbox.containers, sandbox.decision.cold) == ({}, None)


def test_it_is_forgotten_with_its_last_container(directory: Path, tmp_path: Path) -> None:
    root = tmp_path / "runc"
    (root / "c1").mkdir(parents=True)
    sandboxes = _loaded(directory)
    sandboxes.of("s1", POD).note("app", Container(state="cold", container_id="c1", root=str(root)))
    sandboxes.prune(root)
    os.rmdir(root / "c1")
    # A container that crashes is gone for some minutes, and comes back.
    sandboxes.prune(root)
    assert (directory / "s1").exists()
    kept = sandboxes.of("s1", POD).containers["app"]
    old = kept.model_copy(update={"at": time.time() - 4000})
    sandboxes.of("s1", POD).containers["app"] = old
    sandboxes.prune(root)
    assert not (directory / "s1").exists()


def test_one_that_is_about_to_be_worked_on_is_kept(directory: Path, tmp_path: Path) -> None:
    """Nothing is written down of it, and CRI-O has no container for a sandbox."""
    sandboxes = _loaded(directory)
    made = sandboxes.of("s1", POD)
    sandboxes.prune(tmp_path)
    assert sandboxes.of("s1", POD) is made


def test_two_threads_forget_the_same(directory: Path, tmp_path: Path) -> None:
    sandboxes = _loaded(directory)
    for number in range(300):
        sandboxes.of(f"s{number}", POD).born = 0.0
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(sandboxes.prune, [tmp_path] * 4)) == [None] * 4
    assert list(sandboxes.known()) == []
