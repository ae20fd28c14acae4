"""What can be dumped, and every reason why it cannot, found before anything is touched."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.checkpoint.subject import examine
from agent.errors import AgentError, BundleInvalid, TargetNotCheckpointable, TargetNotFound
from agent.host import process
from agent.targets import ProcessTarget, RuncTarget
from tests.cgroups import echo
from tests.waiting import eventually

CONFIG = {"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "process": {"terminal": False}}


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(["sleep", "1000"])
    yield child
    child.kill()
    child.wait()


class Root:
    """A directory of runc's with one container in it, as runc writes them down."""

    def __init__(self, path: Path, pid: int) -> None:
        self.path = path / "root"
        self.bundle = path / "bundle"
        self.bundle.mkdir()
        (self.bundle / "config.json").write_text(json.dumps(CONFIG))
        found = process.stat(pid)
        self.state: dict[str, Any] = {
            "id": "web",
            "init_process_pid": pid,
            "init_process_start": found.started if found else 0,
            "cgroup_paths": {},
            "config": {"labels": ["other=1", f"bundle={self.bundle}"]},
        }
        (self.path / "web").mkdir(parents=True)
        self.write()

    def write(self, text: str | None = None) -> None:
        """Write the state, or another text in its place."""
        text = json.dumps(self.state) if text is None else text
        (self.path / "web" / "state.json").write_text(text)

    @property
    def target(self) -> RuncTarget:
        """The container."""
        return RuncTarget("web", self.path)


@pytest.fixture
def root(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> Root:
    return Root(tmp_path, sleeper.pid)


def test_a_process(sleeper: subprocess.Popen[bytes]) -> None:
    subject = examine(ProcessTarget(sleeper.pid))

    assert (subject.pid, subject.runc_root, subject.bundle) == (sleeper.pid, None, None)
    assert (subject.config, subject.terminal, subject.freezer) == (None, False, None)
    assert subject.status == "running"
    sleeper.kill()
    sleeper.wait()
    assert subject.status == "stopped"


@pytest.mark.parametrize("pid", [0, -1, -(1 << 40), 1 << 23, 1 << 40])
def test_no_process(pid: int) -> None:
    with pytest.raises(TargetNotFound, match=f"no process '{pid}'"):
        examine(ProcessTarget(pid))


def test_a_process_that_has_ended() -> None:
    with subprocess.Popen(["true"]) as child:
        eventually(lambda: not process.is_alive(child.pid), "a zombie")

        with pytest.raises(TargetNotCheckpointable, match="it has ended"):
            examine(ProcessTarget(child.pid))


def test_the_agent_itself() -> None:
    for pid in (os.getpid(), os.getppid()):
        with pytest.raises(TargetNotCheckpointable, match="the agent itself"):
            examine(ProcessTarget(pid))


def test_a_kernel_thread() -> None:
    """kthreadd, where this is not a pid namespace of its own."""
    if not process.is_kernel_thread(2):
        pytest.skip("no kernel threads can be seen from here")
    with pytest.raises(TargetNotCheckpointable, match="kernel thread"):
        examine(ProcessTarget(2))


# With the options of unshare(1) for them.
ELSEWHERE = {"network": "--net", "mount": "--mount", "user": "--user --map-root-user"}
COME_BACK = ["ipc", "uts", "cgroup", "time"]


@contextmanager
def shell(script: str) -> Iterator[int]:
    """The pid of a shell, or of what it becomes, when that or its child has become `cat`."""
    with subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE) as child:
        tree = psutil.Process(child.pid)
        eventually(
            lambda: "cat" in [each.name() for each in (tree, *tree.children())], "the program"
        )
        yield child.pid
        child.communicate()


@pytest.mark.root
@pytest.mark.parametrize("name", ELSEWHERE)
@pytest.mark.parametrize("below", [False, True], ids=["itself", "child"])
def test_a_process_that_could_not_be_restored(name: str, below: bool) -> None:
    which = "process [0-9]+ below it is" if below else ": it is"
    unshare = f"unshare {ELSEWHERE[name]} cat"
    with (
        shell(f"{unshare}; exit" if below else f"exec {unshare}") as pid,
        pytest.raises(TargetNotCheckpointable, match=f"{which} in another {name} namespace"),
    ):
        examine(ProcessTarget(pid))


@pytest.mark.root
@pytest.mark.parametrize("kind", COME_BACK)
def test_a_process_in_a_namespace_that_comes_back(kind: str) -> None:
    with shell(f"exec unshare --{kind} cat") as pid:
        assert examine(ProcessTarget(pid)).pid == pid


def test_a_container(root: Root) -> None:
    subject = examine(root.target)

    assert subject.pid == root.state["init_process_pid"]
    assert subject.started == root.state["init_process_start"]
    assert subject.runc_root == str(root.path)
    assert subject.bundle == root.bundle
    assert subject.config is not None
    assert json.loads(subject.config) == CONFIG
    assert (subject.freezer, subject.terminal, subject.status) == (None, False, "running")


def test_a_root_that_is_a_link_is_recorded_as_what_it_is(root: Root, tmp_path: Path) -> None:
    """One lock and one record for a container, by whatever name its root is called."""
    (tmp_path / "link").symlink_to(root.path)

    assert examine(RuncTarget("web", tmp_path / "link")).runc_root == str(root.path)


@pytest.mark.root
@pytest.mark.parametrize("version", [1, 2])
def test_a_container_that_is_paused(root: Root, version: int) -> None:
    with echo(version) as task:
        root.state["cgroup_paths"] = {"freezer" if version == 1 else "": str(task.freezer.path)}
        root.write()
        subject = examine(root.target)
        assert subject.freezer == task.freezer
        assert subject.status == "running"

        task.freezer.freeze()

        assert subject.status == "paused"
        assert examine(root.target).status == "paused"


def test_a_container_with_a_terminal(root: Root) -> None:
    config = CONFIG | {"process": {"terminal": True}}
    (root.bundle / "config.json").write_text(json.dumps(config))

    assert examine(root.target).terminal


def test_a_container_that_has_stopped(root: Root, sleeper: subprocess.Popen[bytes]) -> None:
    sleeper.kill()
    sleeper.wait()

    with pytest.raises(TargetNotCheckpointable, match=r"container 'web' cannot .* it is stopped"):
        examine(root.target)


def test_another_process_with_the_pid_of_one_that_has_stopped(root: Root) -> None:
    root.state["init_process_start"] -= 1
    root.write()

    with pytest.raises(TargetNotCheckpointable, match="it is stopped"):
        examine(root.target)


def test_the_agent_s_own_container(root: Root) -> None:
    found = process.stat(os.getppid())
    assert found is not None
    root.state |= {"init_process_pid": os.getppid(), "init_process_start": found.started}
    root.write()

    with pytest.raises(TargetNotCheckpointable, match="the agent itself"):
        examine(root.target)


@pytest.mark.parametrize(
    "container",
    ["other", "", ".", "..", "../root/web", "web/", "/web", "web\n", "we b", "w\0b", "x" * 1025],
)
def test_no_container(root: Root, container: str) -> None:
    with pytest.raises(TargetNotFound) as caught:
        examine(RuncTarget(container, root.path))

    assert caught.value.where == f" under {root.path}"


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", "7", "{}", '"text"', '{"init_process_pid": "x"}', "\0"),
        '{"init_process_pid": 1, "init_process_start": 1, "cgroup_paths": {}, "config": {}}',
        '{"init_process_pid": null, "init_process_start": 1, "config": {"labels": []}}',
        '{"init_process_pid": 1, "init_process_start": 1, "config": {"labels": null}}',
    ],
)
def test_a_state_that_says_nothing(root: Root, text: str) -> None:
    root.write(text)

    with pytest.raises(TargetNotFound):
        examine(root.target)


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", '{"root": "x"}', '{"root": null}'])
def test_a_bundle_that_cannot_be_read(root: Root, text: str | None) -> None:
    path = root.bundle / "config.json"
    path.unlink()
    if text is not None:
        path.write_text(text)

    with pytest.raises(BundleInvalid) as caught:
        examine(root.target)

    assert caught.value.bundle == str(root.bundle)


def test_every_refusal_says_that_nothing_was_touched() -> None:
    for kind in (TargetNotFound, TargetNotCheckpointable):
        assert issubclass(kind, AgentError)
        assert kind.state == "nothing was touched"
