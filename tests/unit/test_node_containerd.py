"""deploy/node/containerd.py where a node does not let it write, or has files elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli_process import ROOT

SCRIPT = ROOT / "deploy" / "node" / "containerd.py"

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("containerd") is None, reason="containerd reads its own file"),
]


def _run(
    config: Path, *words: str, inside: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*inside, sys.executable, "-I", SCRIPT, *words],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "CONTAINERD_CONFIG": str(config)},
    )


def _add(config: Path, *inside: str) -> subprocess.CompletedProcess[str]:
    return _run(config, "add", "/opt/checkpoint-runc", inside=inside)


def test_a_read_only_node_gets_its_agent_all_the_same(tmp_path: Path) -> None:
    """What it ends with is what the init container ends with."""
    config = tmp_path / "config.toml"
    config.write_text("version = 2\n")
    read_only = f'mount --bind {tmp_path} {tmp_path} && mount -o remount,ro,bind {tmp_path} && "$@"'
    done = _add(config, "unshare", "--mount", "sh", "-c", read_only, "sh")
    assert done.returncode == 0, done.stderr
    assert "Read-only file system" in done.stderr
    assert "docs/kubernetes.md" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]


@pytest.mark.parametrize("data", [b"\xff\xfe", b"version = 2\nversion = 2\n"])
def test_a_file_that_is_no_toml_is_left_alone(tmp_path: Path, data: bytes) -> None:
    config = tmp_path / "config.toml"
    config.write_bytes(data)
    done = _add(config)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert config.read_bytes() == data
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]


def test_a_configuration_that_is_a_link_stays_one(tmp_path: Path) -> None:
    real, config = tmp_path / "real.toml", tmp_path / "config.toml"
    real.write_text("version = 2\n")
    real.chmod(0o640)
    config.symlink_to(real.name)
    assert _add(config).returncode == 0
    assert "checkpoint-runc" in real.read_text()
    assert _run(config, "remove").returncode == 0
    assert config.is_symlink()
    assert (real.read_text(), real.stat().st_mode & 0o777) == ("version = 2\n", 0o640)
