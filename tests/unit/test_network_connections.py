"""CRIU's locks of single connections taken back, and not those of others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.errors import NetworkStuck
from agent.host import process
from agent.host.connections import unlock
from tests.networks import filter_rules, in_network

pytestmark = pytest.mark.root

# Servers for IPv4, IPv6, and IPv4 at a socket for both; each with a client. Their ports are told.
PROGRAM = """
import os, socket, sys
os.system("ip link set lo up")
held = []
for address, beyond in (("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1")):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    dual = address == "::"
    server = socket.create_server((address, 0), family=family, dualstack_ipv6=dual)
    client = socket.create_connection((beyond, server.getsockname()[1]))
    held += [server, client, server.accept()[0]]
    print(client.getsockname()[1], server.getsockname()[1])
print(flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process in a network of its own, and the ports of its clients and servers."""

    pid: int
    ports: list[tuple[str, str]]

    @property
    def network(self) -> Path:
        return Path(f"/proc/{self.pid}/ns/net")

    def lock(self, at: int = 0, *, program: str = "iptables", mark: str = "0xC114") -> None:
        """As CRIU does for the server's end of a connection."""
        client, server = self.ports[at]
        address = "::1" if program == "ip6tables" else "127.0.0.1"
        for chain, near, far in (("INPUT", client, server), ("OUTPUT", server, client)):
            in_network(
                self.network,
                *(program, "-t", "filter", "-I", chain, "--protocol", "tcp"),
                *("-m", "mark", "!", "--mark", mark, "--source", address, "--sport", near),
                *("--destination", address, "--dport", far, "-j", "DROP"),
            )

    async def unlock(self) -> bool:
        """By pid and start time, as the journal has them."""
        found = process.stat(self.pid)
        assert found is not None
        return await unlock(self.pid, found.started)


@pytest.fixture
def holder() -> Iterator[Holder]:
    if os.geteuid() != 0 or shutil.which("iptables") is None:
        pytest.skip("needs root and iptables")
    argv = ["unshare", "--net", sys.executable, "-c", PROGRAM]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as inside:
        assert inside.stdout is not None
        lines = iter(inside.stdout.readline, "\n")
        yield Holder(inside.pid, [(one, other) for one, other in map(str.split, lines)])
        inside.communicate()


async def test_of_every_family(holder: Holder) -> None:
    holder.lock(0)
    holder.lock(1, program="ip6tables")
    holder.lock(2)
    assert len(filter_rules(holder.network)) == 6
    assert await holder.unlock()
    assert filter_rules(holder.network) == []
    assert not await holder.unlock()


async def test_those_of_another_dump_stay(holder: Holder) -> None:
    others = Holder(holder.pid, [("7", "8")])
    others.lock()
    before = filter_rules(holder.network)
    holder.lock()
    assert await holder.unlock()
    assert filter_rules(holder.network) == before


async def test_somebody_elses_rule_about_the_same_connection_stays(holder: Holder) -> None:
    holder.lock(mark="0xC115")
    assert not await holder.unlock()
    assert len(filter_rules(holder.network)) == 2


async def test_one_that_was_locked_twice(holder: Holder) -> None:
    holder.lock()
    holder.lock()
    assert await holder.unlock()
    assert filter_rules(holder.network) == []


async def test_a_process_that_is_gone(holder: Holder) -> None:
    holder.lock()
    assert not await unlock(holder.pid, 1)
    assert len(filter_rules(holder.network)) == 2


async def test_an_iptables_that_fails(
    holder: Holder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder.lock(0)
    holder.lock(1, program="ip6tables")
    program = tmp_path / "iptables"
    program.write_text(
        f'#!/bin/sh\n[ $# = 2 ] && exec {shutil.which("iptables")} "$@"\necho busy >&2\nexit 4\n'
    )
    program.chmod(0o700)
    with monkeypatch.context() as broken:
        broken.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        with pytest.raises(NetworkStuck, match="busy"):
            await holder.unlock()
    # All else was opened.
    assert len(filter_rules(holder.network)) == 2
    assert await holder.unlock()
    assert filter_rules(holder.network) == []
