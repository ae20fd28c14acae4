"""deploy/node/daemon.sh: what the daemon sees of the node's files, and what comes after it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli_process import ROOT

pytestmark = pytest.mark.root

APPLETS = ("cat", "chmod", "mkdir", "mount", "mv", "nsenter", "sh")

# In the agent's place: it says what it sees, before and after the node has changed its files.
AGENT = """#!/bin/sh
cd {directory}
echo "$*" >>called
case $1 in
daemon)
    cat /etc/resolv.conf /etc/hosts /etc/nsswitch.conf /etc/other >before
    echo >asked
    read -r status <go
    cat /etc/resolv.conf /etc/hosts /etc/nsswitch.conf /etc/other >after
    exit "$status" ;;
esac
"""

# A node with an /etc of its own, whose / is shared as systemd has it. While the agent runs, files
# are replaced as resolvers do it.
NODE = """
set -eu
cd {directory}
mount -t tmpfs tmpfs etc
mkdir etc/run
echo 'nameserver 192.0.2.1' >etc/{resolver}
[ -e etc/resolv.conf ] || ln -s {resolver} etc/resolv.conf
echo '192.0.2.2 node' >etc/hosts
echo 'hosts: resolve' >etc/nsswitch.conf
echo 'other' >etc/other
mount --make-rprivate /
mount --bind etc /etc
mount --make-rshared /
unshare --mount --propagation slave -- opt/busybox sh opt/node/daemon.sh 3<pod-resolv 4<pod-hosts &
read -r _ <asked
echo 'nameserver 192.0.2.9' >/etc/new
mv /etc/new /etc/{resolver}
grep -q 192.0.2.9 /etc/resolv.conf
echo '192.0.2.3 node' >/etc/new
mv /etc/new /etc/hosts
echo {status} >go
wait $!
"""

SEEN = "nameserver 198.51.100.10\n198.51.100.2 pod\nhosts: files dns\nother\n"


def _run(directory: Path, resolver: str, status: int) -> subprocess.CompletedProcess[str]:
    busybox = shutil.which("busybox")
    assert busybox is not None
    prefix = directory / "opt"
    for folder in ("opt/bin", "opt/node/bin", "opt/pod", "etc"):
        (directory / folder).mkdir(parents=True)
    shutil.copy(busybox, prefix / "busybox")
    for applet in APPLETS:
        (prefix / "node" / "bin" / applet).symlink_to("../../busybox")
    shutil.copy(ROOT / "deploy" / "node" / "daemon.sh", prefix / "node")
    agent = prefix / "bin" / "checkpoint-agent"
    agent.write_text(AGENT.format(directory=directory))
    agent.chmod(0o755)
    (directory / "pod-resolv").write_text("nameserver 198.51.100.10\n")
    (directory / "pod-hosts").write_text("198.51.100.2 pod\n")
    subprocess.run(["mkfifo", directory / "asked", directory / "go"], check=True)
    script = NODE.format(directory=directory, resolver=resolver, status=status)
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip


@pytest.mark.parametrize("resolver", ["resolv.conf", "run/stub-resolv.conf"])
def test_the_cluster_s_names_outlive_a_change_of_the_node_s(tmp_path: Path, resolver: str) -> None:
    done = _run(tmp_path, resolver, 0)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "before").read_text() == SEEN
    assert (tmp_path / "after").read_text() == SEEN


def test_what_is_frozen_is_thawed_however_the_daemon_ends(tmp_path: Path) -> None:
    done = _run(tmp_path, "resolv.conf", 3)
    assert (done.returncode, done.stderr) == (3, "")
    assert (tmp_path / "called").read_text() == "daemon\nthaw --all\n"
