"""The script itself, with a runc that writes down how it was called."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.host.checkpoint_runc import install_wrapper
from agent.host.wrapper.facts import Facts
from tests.waiting import PATIENCE

_RUNC = """#!/bin/sh
printf '%s\\0' "$@" > {calls}
cat
echo complaint >&2
exit 5
"""

# As they come from engines, and what a person might type.
CALLS = [
    ["--version"],
    ["features"],
    ["--root", "/r", "--log", "/l", "--log-format", "json", "state", "abc"],
    ["--root", "/r", "delete", "--force", "abc"],
    ["--root", "/r", "kill", "--all", "abc", "9"],
    ["--root=/r", "--systemd-cgroup", "exec", "-d", "--process", "/p", "abc"],
    ["ps", "--format", "json", "abc", "a b", "", "*"],
    ["pause", "abc"],
    ["events", "--stats", "abc"],
    ["update", "--resources", "-", "abc"],
    ["checkpoint", "--image-path", "/i", "create"],
    ["--root", "create", "list"],
    ["start", "abc"],
    ["start"],
    ["create", "--bundle", "/nowhere", "--pid-file", "/p", "abc"],
    ["create"],
    [],
]


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A `checkpoint-runc`, and what its runc was called with."""

    directory: Path

    @property
    def program(self) -> Path:
        return self.directory / "checkpoint-runc"

    def run(
        self, *words: str, shell: str = "/bin/sh", given: bytes = b"", path: str | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [shell, self.program, *words],
            input=given,
            capture_output=True,
            env={"PATH": path or os.environ["PATH"]},
        )

    def called(self) -> list[str] | None:
        calls = self.directory / "calls"
        return calls.read_text().split("\0")[:-1] if calls.exists() else None


@pytest.fixture
def wrapped(tmp_path: Path) -> Wrapped:
    _write_runc(tmp_path / "runc", tmp_path / "calls")
    made = Wrapped(tmp_path)
    install_wrapper(
        made.program, socket=tmp_path / "restore.sock", runc=tmp_path / "runc", patience=0
    )
    return made


def _write_runc(path: Path, calls: Path) -> None:
    path.write_text(_RUNC.format(calls=calls))
    path.chmod(0o700)


@pytest.mark.parametrize("words", CALLS, ids=" ".join)
def test_everything_else_is_runcs(wrapped: Wrapped, words: list[str]) -> None:
    for shell in _shells(wrapped.directory):
        done = wrapped.run(*words, shell=shell, given=b"input")
        assert (done.returncode, done.stdout, done.stderr) == (5, b"input", b"complaint\n")
        assert wrapped.called() == (words or [""])


def _shells(directory: Path) -> list[str]:
    """As hosts have it: dash, or busybox's ash, which is found by its name."""
    if (busybox := shutil.which("busybox")) is None:
        return ["/bin/sh"]
    (directory / "ash").symlink_to(busybox)
    return ["/bin/sh", str(directory / "ash")]


def test_a_container_that_runs_already_is_not_started_again(wrapped: Wrapped) -> None:
    state = wrapped.directory / "root" / "abc"
    state.mkdir(parents=True)
    (state / "checkpoint-restored").touch()
    root = str(wrapped.directory / "root")
    assert wrapped.run("--root", root, "--log", "create", "start", "abc").returncode == 0
    assert wrapped.run(f"--root={root}", "start", "abc").returncode == 0
    assert wrapped.called() is None
    assert wrapped.run("--root", root, "start", "other").returncode == 5
    assert wrapped.run("--root", root, "kill", "abc").returncode == 5


def _bundle(wrapped: Wrapped, config: object) -> Path:
    bundle = wrapped.directory / "bundle"
    bundle.mkdir()
    (bundle / "config.json").write_text(json.dumps(config))
    return bundle


@pytest.mark.parametrize(
    "config",
    [
        {"process": {"env": ["CHECKPOINT_RESTORE=x"]}},
        {"annotations": {"checkpoint-agent/restore": "x"}},
        {"annotations": {"checkpoint-agent/restore": "x",
                         "io.kubernetes.cri.container-type": "sandbox"}},
        {"annotations": ["checkpoint-agent/restore", 1]},
        "checkpoint-agent/restore",
    ],
)  # fmt: skip
def test_what_is_no_container_of_a_pod_is_runcs(wrapped: Wrapped, config: object) -> None:
    words = ["create", "--bundle", str(_bundle(wrapped, config)), "abc"]
    done = wrapped.run(*words, given=b"input")
    assert (done.returncode, done.stdout) == (5, b"input")
    assert wrapped.called() == words


def test_without_an_agent_a_container_starts_cold(wrapped: Wrapped) -> None:
    annotations = {
        "checkpoint-agent/restore": "x",
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.container-name": "app",
        "io.kubernetes.cri.sandbox-id": "s1",
    }
    words = ["create", "--bundle", str(_bundle(wrapped, {"annotations": annotations})), "abc"]
    assert wrapped.run(*words).returncode == 5
    assert wrapped.called() == words
    record = json.loads((wrapped.directory / "restores" / "s1" / "app.json").read_text())
    assert (record["state"], record["container_id"]) == ("cold", "abc")
    # Where another container of the pod has come back, it fails instead.
    (wrapped.directory / "calls").unlink()
    (wrapped.directory / "restores" / "s1" / "app.json").unlink()
    (wrapped.directory / "restores" / "s1" / "side.json").write_text('{"state": "restored"}')
    log = wrapped.directory / "log"
    done = wrapped.run("--log", str(log), "--log-format", "json", *words)
    assert done.returncode == 1
    assert b"a cold start is not wanted" in done.stderr
    assert json.loads(log.read_text())["level"] == "error"
    assert wrapped.called() is None


@pytest.mark.parametrize("state", ["restoring", "failed"])
def test_a_try_that_came_to_nothing_is_no_start(wrapped: Wrapped, state: str) -> None:
    """The agent was killed in the middle, or is gone before the next try: still half a pod."""
    annotations = {
        "checkpoint-agent/restore": "x",
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.container-name": "app",
        "io.kubernetes.cri.sandbox-id": "s1",
    }
    words = ["create", "--bundle", str(_bundle(wrapped, {"annotations": annotations})), "abc"]
    records = wrapped.directory / "restores" / "s1"
    records.mkdir(parents=True)
    (records / "side.json").write_text('{"state": "restored"}')
    (records / "app.json").write_text(json.dumps({"state": state}))
    assert b"a cold start is not wanted" in wrapped.run(*words).stderr
    assert wrapped.called() is None
    # A restart is none of the checkpoint's business, and what became of the first start stays.
    (records / "app.json").write_text('{"state": "restored", "pid": 7}')
    assert wrapped.run(*words).returncode == 5
    record = json.loads((records / "app.json").read_text())
    assert (record["state"], record["pid"], record["again"]) == ("restored", 7, True)


def test_one_may_start_cold_when_those_that_came_back_have(wrapped: Wrapped) -> None:
    """Nothing of the checkpoint runs any more, so there is nothing that it would be half of."""
    annotations = {
        "checkpoint-agent/restore": "x",
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.container-name": "app",
        "io.kubernetes.cri.sandbox-id": "s1",
    }
    words = ["create", "--bundle", str(_bundle(wrapped, {"annotations": annotations})), "abc"]
    records = wrapped.directory / "restores" / "s1"
    records.mkdir(parents=True)
    (records / "app.json").write_text('{"state": "failed"}')
    (records / "side.json").write_text('{"state": "restored", "again": true}')
    (records / "more.json").write_text('{"state": "restored"}')
    assert b"a cold start is not wanted" in wrapped.run(*words).stderr
    (records / "more.json").write_text('{"state": "restored", "again": true}')
    assert wrapped.run(*words).returncode == 5
    assert json.loads((records / "app.json").read_text())["state"] == "cold"


def test_whose_a_container_of_each_engine_is(wrapped: Wrapped) -> None:
    containerd = {
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.container-name": "app",
        "io.kubernetes.cri.sandbox-id": "s1",
    }
    crio = {
        "io.kubernetes.cri-o.ContainerType": "container",
        "io.kubernetes.cri-o.SandboxID": "s1",
        "io.kubernetes.cri-o.Labels": '{"io.kubernetes.container.name": "app"}',
    }
    bundle = _bundle(wrapped, {})
    roots = {"rootfs": f"{bundle}/rootfs", "/var/merged": "/var/merged"}
    for noted, (path, root) in zip((containerd, crio), roots.items(), strict=True):
        config = {"annotations": noted, "root": {"path": path}}
        (bundle / "config.json").write_text(json.dumps(config))
        facts = Facts(str(bundle))
        assert facts.is_container
        assert (facts.sandbox, facts.name, facts.root) == ("s1", "app", root)


def test_what_an_author_writes_of_another_engine_is_no_fact(wrapped: Wrapped) -> None:
    """It would choose among records of other pods. As the agent has it: see test_runtime_source."""
    containerd = {
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.container-name": "app",
        "io.kubernetes.cri.sandbox-id": "s1",
        "io.kubernetes.cri.sandbox-uid": "u1",
    }
    crio = {
        "io.kubernetes.cri-o.ContainerType": "container",
        "io.kubernetes.cri-o.SandboxID": "s2",
        "io.kubernetes.cri-o.Labels": '{"io.kubernetes.container.name": "side"}',
    }
    bundle = _bundle(wrapped, {})

    def facts(*removed: str) -> Facts:
        noted = {key: value for key, value in {**containerd, **crio}.items() if key not in removed}
        (bundle / "config.json").write_text(json.dumps({"annotations": noted}))
        return Facts(str(bundle))

    both = facts()
    assert (both.is_container, both.sandbox, both.name) == (False, "", "")
    of_crio = facts("io.kubernetes.cri.container-type")
    assert (of_crio.is_container, of_crio.sandbox, of_crio.name, of_crio.uid) == (
        True, "s2", "side", "",
    )  # fmt: skip
    of_containerd = facts("io.kubernetes.cri-o.ContainerType")
    assert (of_containerd.sandbox, of_containerd.name, of_containerd.uid) == ("s1", "app", "u1")


def test_hostile_names_are_no_paths(wrapped: Wrapped) -> None:
    annotations = {
        "checkpoint-agent/restore": "x",
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.container-name": "../../../app",
        "io.kubernetes.cri.sandbox-id": "../s1",
    }
    words = ["create", "--bundle", str(_bundle(wrapped, {"annotations": annotations})), "abc"]
    assert wrapped.run(*words).returncode == 5
    assert not (wrapped.directory / "restores").exists()


def test_the_runc_in_path_is_not_itself(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    install_wrapper(first / "runc", socket=tmp_path / "s")
    _write_runc(second / "runc", tmp_path / "calls")
    done = subprocess.run(
        [first / "runc", "list"],
        input=b"",
        capture_output=True,
        env={"PATH": f"{first}:{second}:{os.environ['PATH']}"},
    )
    assert done.returncode == 5
    assert (tmp_path / "calls").read_text() == "list\0"


def test_no_runc_but_itself(tmp_path: Path) -> None:
    """It would start itself again and again, for ever."""
    for name in ("first", "second*"):
        install_wrapper(tmp_path / name / "runc", socket=tmp_path / "s")
    # Nor does a name in PATH mean others.
    shutil.copytree(tmp_path / "second*", tmp_path / "second-one")
    done = subprocess.run(
        [tmp_path / "first" / "runc", "list"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={"PATH": f"{tmp_path}/first:{tmp_path}/seco*"},
        timeout=PATIENCE,
    )
    assert done.returncode == 127
    assert b"no runc in PATH" in done.stderr


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck")
def test_shellcheck(wrapped: Wrapped) -> None:
    done = subprocess.run(
        ["shellcheck", "--shell=dash", wrapped.program], capture_output=True, text=True
    )
    assert done.stdout == ""
