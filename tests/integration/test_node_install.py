"""What the init container does to a node: versions side by side, and containerd's configuration."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from types import ModuleType

import pytest

from tests.bundles import host_bundle, in_memory
from tests.cli_process import ROOT

pytestmark = pytest.mark.root

_CRI = 'plugins."io.containerd.grpc.v1.cri"'
SANDBOX = f'[{_CRI}]\nsandbox_image = "registry.example/pause:1"\n'
RUNC = f"""\
[{_CRI}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[{_CRI}.containerd.runtimes.runc.options]
SystemdCgroup = true
"""
CONFIGURATIONS = {
    "none": None,
    "no handler": f"version = 2\n{SANDBOX}",
    "runc": f"version = 2\n{SANDBOX}{RUNC}",
    "another default": (
        f'version = 2\n{SANDBOX}[{_CRI}.containerd]\ndefault_runtime_name = "other"\n'
        + RUNC
        + RUNC.replace("runtimes.runc", "runtimes.other")
    ),
    "imports": f'version = 2\nimports = ["/nowhere/*.toml"]\n{SANDBOX}{RUNC}',
    "no newline at its end": f"version = 2\n{SANDBOX}{RUNC}".rstrip(),
}


@pytest.fixture(scope="module")
def handler() -> ModuleType:
    """deploy/node/containerd.py, which is no part of a package."""
    place = ROOT / "deploy" / "node" / "containerd.py"
    spec = importlib.util.spec_from_file_location("node_containerd", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("text", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_containerd_gets_a_handler_and_keeps_all_else(
    tmp_path: Path, handler: ModuleType, text: str | None
) -> None:
    """With the real containerd of this machine, whichever version it is."""
    config = tmp_path / "config.toml"
    if text is not None:
        config.write_text(text)
    containerd = handler.Containerd("containerd", config)
    before = containerd.effective(config)
    handler.add(containerd, tmp_path / "checkpoint-runc")
    after = containerd.effective(config)

    made = handler.handlers(after)[handler.HANDLER]
    assert made["options"]["BinaryName"] == str(tmp_path / "checkpoint-runc")
    assert made["pod_annotations"] == made["container_annotations"] == ["checkpoint-agent/*"]
    # The wrong one, and kubelet's cgroups are not containerd's.
    cgroups = handler.default_handler(before)["options"].get("SystemdCgroup", False)
    assert made["options"]["SystemdCgroup"] == cgroups == ("SystemdCgroup = true" in (text or ""))
    assert "runc" in handler.handlers(after)
    del handler.handlers(after)[handler.HANDLER]
    # Which files were read, this one among them.
    assert after | {"imports": []} == before | {"imports": []}
    assert containerd.pending.exists()

    written = config.read_text()
    handler.add(containerd, tmp_path / "checkpoint-runc")
    assert config.read_text() == written
    handler.add(containerd, tmp_path / "elsewhere")
    assert config.read_text().count("BinaryName") == written.count("BinaryName")
    handler.remove(containerd)
    assert config.read_text().rstrip() == (text or f"version = {before['version']}").rstrip()


def test_a_file_that_containerd_cannot_extend_is_left_alone(
    tmp_path: Path, handler: ModuleType
) -> None:
    config = tmp_path / "config.toml"
    text = f"version = 2\n[{_CRI}]\ncontainerd = {{ runtimes = {{}} }}\n"
    config.write_text(text)
    with pytest.raises(handler.Unchanged, match=r"Nothing was changed"):
        handler.add(handler.Containerd("containerd", config), tmp_path / "checkpoint-runc")
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]
    assert config.read_text() == text


# A machine that systemd runs, as far as the script looks.
_BOOTED = 'mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system && exec "$@"'

_SYSTEMCTL = """#!/bin/sh
echo "$@" >>{log}
# What `systemctl restart` does, as far as its exit code goes.
containerd --config {config} config dump | grep -q 'checkpoint-runc' || exit 0
exit {status}
"""


def _add_under_systemd(directory: Path, status: int) -> tuple[list[str], str]:
    """What systemctl was asked for, and what was said, when it ends with ``status``."""
    config, log, program = (directory / name for name in ("config.toml", "log", "bin/systemctl"))
    program.parent.mkdir(exist_ok=True)
    program.write_text(_SYSTEMCTL.format(log=log, config=config, status=status))
    program.chmod(0o755)
    script = ROOT / "deploy" / "node" / "containerd.py"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", _BOOTED, "sh",
         sys.executable, "-I", script, "add", "/opt/checkpoint-runc"],
        capture_output=True, text=True, check=True,
        env={"PATH": f"{program.parent}:{os.environ['PATH']}", "CONTAINERD_CONFIG": str(config)},
    )  # fmt: skip
    return log.read_text().splitlines(), done.stdout + done.stderr


def test_containerd_is_restarted_once(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(f"version = 2\n{RUNC}")
    for _ in range(2):
        asked, _ = _add_under_systemd(tmp_path, 0)
        assert asked == ["restart containerd"]
    assert "checkpoint-runc" in (tmp_path / "config.toml").read_text()


def test_a_containerd_that_does_not_start_gets_its_configuration_back(tmp_path: Path) -> None:
    text = f"version = 2\n{RUNC}"
    (tmp_path / "config.toml").write_text(text)
    asked, said = _add_under_systemd(tmp_path, 1)
    assert asked == ["restart containerd", "restart containerd"]
    assert (tmp_path / "config.toml").read_text() == text
    assert "did not start with the handler, which is removed again" in said


class _Node:
    """This machine as a node: the scripts of an image, with paths of the test's own."""

    def __init__(self, image: Path, directory: Path) -> None:
        self.image, self.prefix = image, directory / "opt"
        self.config = directory / "config.toml"
        self.config.write_text(f"version = 2\n{RUNC}")

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.image / "node" / script],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ
            | {
                "PREFIX": str(self.prefix),
                "NODE_PID": str(os.getpid()),
                "CONTAINERD_CONFIG": str(self.config),
                "RESTORE_SOCKET": "/run/nobody/restore.sock",
            },
        )

    def rename_image(self, version: str) -> None:
        """Give it another version, as if it had been built from something else."""
        stamp = self.image / ".checkpoint-agent"
        # It may be a link to what other bundles have.
        stamp.unlink()
        stamp.write_text(f"{version}\n")

    def versions(self) -> set[str]:
        return {path.parent.name for path in self.prefix.glob("0*/.checkpoint-agent")}


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("a node's mount namespace needs root")
    with in_memory("node-") as directory:
        image = host_bundle(directory / "image")
        # What would take time to copy plays no part.
        for package in (*image.glob("lib/python3*/dist-packages/[b-z]*"), image / "criu"):
            subprocess.run(["rm", "-rf", package], check=True)
        yield directory


@pytest.fixture
def node(memory: Path) -> _Node:
    """One with nothing on it; the image's version is the test's to choose."""
    node = _Node(memory / "image", Path(mkdtemp(dir=memory)))
    node.rename_image("0.0")
    return node


@pytest.mark.slow
def test_versions_are_switched_kept_and_removed(node: _Node) -> None:
    node.prefix.mkdir()
    (node.prefix / "mine").touch()
    for name, kept in (
        ("0.1", {"0.1"}),
        ("0.2", {"0.1", "0.2"}),
        ("0.2", {"0.1", "0.2"}),
        ("0.3", {"0.2", "0.3"}),
        ("0.2", {"0.2", "0.3"}),
    ):
        node.rename_image(name)
        done = node.run("install.sh")
        assert done.returncode == 0, done.stderr
        assert node.versions() == kept
        assert os.readlink(node.prefix / "current") == name
        wrapper = (node.prefix / "bin" / "checkpoint-runc").read_text()
        assert f"{node.prefix}/{name}/bin/python" in wrapper
        assert "/run/nobody/restore.sock" in wrapper
    configured = tomllib.loads(node.config.read_text())["plugins"]["io.containerd.grpc.v1.cri"]
    made = configured["containerd"]["runtimes"]["checkpoint-runc"]["options"]
    assert made["BinaryName"] == f"{node.prefix}/bin/checkpoint-runc"

    done = node.run("uninstall.sh")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in node.prefix.iterdir()] == ["mine"]
    assert node.config.read_text() == f"version = 2\n{RUNC}"


@pytest.mark.slow
def test_it_is_removed_again_by_whoever_comes_after_one_that_was_cut_short(node: _Node) -> None:
    """kubelet runs an init container again, whatever became of it the last time."""
    node.prefix.mkdir()
    assert node.run("install.sh").returncode == 0
    (node.prefix / "current").unlink()
    (node.prefix / ".copy.gone" / "bin").mkdir(parents=True)
    for _ in range(2):
        done = node.run("uninstall.sh")
        assert done.returncode == 0, done.stderr
        assert list(node.prefix.iterdir()) == []
        assert node.config.read_text() == f"version = 2\n{RUNC}"


@pytest.mark.slow
def test_an_agent_that_systemd_runs_is_left_alone(node: _Node) -> None:
    node.prefix.mkdir()
    (node.prefix / ".checkpoint-agent").touch()
    done = node.run("install.sh")
    assert done.returncode == 1
    assert "make uninstall" in done.stderr
    assert node.run("uninstall.sh").returncode == 0
    assert [path.name for path in node.prefix.iterdir()] == [".checkpoint-agent"]


@pytest.mark.slow
def test_a_copy_that_was_cut_short_does_not_count(node: _Node) -> None:
    (node.prefix / ".copy.1" / "bin").mkdir(parents=True)
    version = "0.0"
    # As if the power had gone: the directory is there, its last file is not.
    (node.prefix / version / "bin").mkdir(parents=True)
    done = node.run("install.sh")
    assert done.returncode == 0, done.stderr
    assert node.versions() == {version}
    assert list(node.prefix.glob(".copy.*")) == []
