"""CRIU's lock taken back, in a real network in which others have rules too."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.host.network import is_locked, unlock
from tests.networks import filter_rules, in_network
from tests.waiting import eventually

pytestmark = pytest.mark.root

# As criu/net.c has it.
LOCK = "*filter\n:CRIU - [0:0]\n-I INPUT -j CRIU\n-I OUTPUT -j CRIU\n-A CRIU -j DROP\nCOMMIT\n"


@pytest.fixture
def namespace() -> Iterator[Path]:
    if os.geteuid() != 0 or shutil.which("iptables") is None:
        pytest.skip("needs root and iptables")
    with subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE) as inside:
        path, own = Path(f"/proc/{inside.pid}/ns/net"), Path("/proc/self/ns/net")
        eventually(lambda: not path.samefile(own), "a network of its own")
        yield path
        inside.communicate()


def lock(namespace: Path, times: int = 1) -> None:
    for _ in range(times):
        subprocess.run(
            ["nsenter", f"--net={namespace}", "iptables-restore", "--noflush"],
            input=LOCK.encode(),
            check=True,
        )


async def test_several_locks(namespace: Path) -> None:
    before = filter_rules(namespace)
    lock(namespace, 3)
    assert await is_locked(namespace)
    assert await unlock(namespace, to_one=True)
    assert await is_locked(namespace)
    assert filter_rules(namespace).count("-A INPUT -j CRIU") == 1
    assert await unlock(namespace)
    assert not await is_locked(namespace)
    assert filter_rules(namespace) == before
    assert not await unlock(namespace)


async def test_rules_of_others_are_no_options(
    namespace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A comment may be anything, and be of somebody who is root in the pod alone."""
    lock(namespace)
    comment = ["-m", "comment", "--comment", "x --modprobe=/evil -j DROP"]
    in_network(namespace, "iptables", "-A", "INPUT", *comment, "-j", "CRIU")
    calls = tmp_path / "calls"
    program = tmp_path / "iptables"
    program.write_text(f'#!/bin/sh\necho "$*" >> {calls}\nexec {shutil.which("iptables")} "$@"\n')
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert await unlock(namespace)
    assert "modprobe" not in calls.read_text()
    # It leads to where everything passes.
    assert not await is_locked(namespace)
    rules = filter_rules(namespace)
    assert not {"-A INPUT -j CRIU", "-A OUTPUT -j CRIU", "-A CRIU -j DROP"} & set(rules)
