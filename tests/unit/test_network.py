"""CRIU's lock taken back, in a real network in which others have rules too."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.errors import NetworkStuck
from agent.host import iptables as iptables_calls
from agent.host.network import is_locked, unlock
from tests.networks import filter_rules, in_network, own_network

pytestmark = pytest.mark.root

# As criu/net.c has it.
LOCK = "*filter\n:CRIU - [0:0]\n-I INPUT -j CRIU\n-I OUTPUT -j CRIU\n-A CRIU -j DROP\nCOMMIT\n"


@pytest.fixture
def namespace() -> Iterator[Path]:
    if os.geteuid() != 0 or shutil.which("iptables") is None:
        pytest.skip("needs root and iptables")
    with own_network() as path:
        yield path


def lock(namespace: Path, times: int = 1, *, program: str = "iptables-restore") -> None:
    for _ in range(times):
        subprocess.run(
            ["nsenter", f"--net={namespace}", program, "--noflush"],
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


@pytest.fixture
def iptables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a script in the place of `iptables`; `$real` is the program, "$@" what it is told."""
    real, path = shutil.which("iptables"), os.environ["PATH"]

    def replace(script: str) -> None:
        program = tmp_path / "iptables"
        program.write_text(f"#!/bin/sh\nreal={real}\n{script}\n")
        program.chmod(0o700)
        monkeypatch.setenv("PATH", f"{tmp_path}:{path}")

    return replace


BUSY = "echo Another app is currently holding the xtables lock >&2; exit 4"


async def test_an_iptables_that_fails_is_no_open_network(
    namespace: Path, iptables: Callable[[str], None]
) -> None:
    lock(namespace)
    lock(namespace, program="ip6tables-restore")
    locked = [in_network(namespace, "ip6tables", "-S"), in_network(namespace, "iptables", "-S")]
    assert all("-A CRIU -j DROP" in rules for rules in locked)
    iptables(BUSY)
    with pytest.raises(NetworkStuck, match="holding the xtables lock") as raised:
        await is_locked(namespace)
    assert raised.value.network == str(namespace)
    with pytest.raises(NetworkStuck, match="holding the xtables lock"):
        await unlock(namespace)
    # The other half is open, and this one as soon as it can be.
    assert "CRIU" not in in_network(namespace, "ip6tables", "-S")
    iptables('exec $real "$@"')
    assert await unlock(namespace)
    assert not await is_locked(namespace)


async def test_an_iptables_that_opens_nothing(
    namespace: Path, iptables: Callable[[str], None]
) -> None:
    lock(namespace, 2)
    iptables(f'[ "$2" = -S ] || {{ {BUSY}; }}\nexec $real "$@"')
    assert await is_locked(namespace)
    for to_one in (True, False):
        with pytest.raises(NetworkStuck, match="holding the xtables lock"):
            await unlock(namespace, to_one=to_one)


async def test_an_iptables_that_does_not_come_to_its_turn(
    namespace: Path, iptables: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iptables_calls, "_TIMEOUT", 0.05)
    iptables("exec sleep 1000")
    with pytest.raises(NetworkStuck, match=r"iptables has not ended within 0\.05 s"):
        await unlock(namespace)


async def test_another_who_opens_it_at_the_same_time(
    namespace: Path, iptables: Callable[[str], None]
) -> None:
    lock(namespace)
    iptables('[ "$2" = -S ] || $real "$@"\nexec $real "$@"')
    assert await unlock(namespace)
    iptables('exec $real "$@"')
    assert not await is_locked(namespace)
    assert filter_rules(namespace) == []


async def test_a_machine_without_iptables(
    namespace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There CRIU locks with nftables. But with half of it there, it may have locked with that."""
    for name in ("nsenter", "sh"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not await is_locked(namespace)
    assert not await unlock(namespace)
    (tmp_path / "iptables-restore").symlink_to("/bin/true")
    with pytest.raises(NetworkStuck, match="iptables"):
        await unlock(namespace)


@pytest.mark.parametrize(
    "said",
    [
        "can't initialize iptables table `filter': Table does not exist (do you need to insmod?)",
        "iptables: Failed to initialize nft: Protocol not supported",
    ],
)
async def test_a_kernel_without_rules(
    namespace: Path, iptables: Callable[[str], None], said: str
) -> None:
    iptables(f'echo "{said.replace("`", chr(39))}" >&2; exit 3')
    assert not await is_locked(namespace)
    assert not await unlock(namespace)


async def test_a_name_whose_namespace_is_gone(namespace: Path, tmp_path: Path) -> None:
    assert not await unlock(namespace)
    (tmp_path / "name").touch()
    assert not await unlock(tmp_path / "name")
    assert not await is_locked(tmp_path / "none")
