"""The other kind of lock: CRIU's table of nftables, in a real network in which others have some."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import NetworkStuck
from agent.host import nftables
from agent.host.network import is_locked, unlock
from tests.networks import own_network, socket_in
from tests.nftables import lock, make, remove
from tests.waiting import descriptors, opened_since

pytestmark = pytest.mark.root

# The names that CRIU has given its tables: before 4.1, and since.
BY_PID, BY_RUN = "CRIU-4711", "CRIU-0f0c8a52-31d7-4a52"
OWNED = 2


@pytest.fixture
def namespace() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with own_network() as path:
        yield path


def passes(namespace: Path) -> bool:
    """Whether anybody can connect there."""
    with socket_in(namespace) as server, socket_in(namespace) as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.settimeout(0.3)
        with contextlib.suppress(TimeoutError):
            client.connect(server.getsockname())
            return True
    return False


@pytest.mark.parametrize("names", [[BY_PID], [BY_RUN], [BY_PID, BY_RUN]], ids=len)
async def test_it_is_taken_back(namespace: Path, names: list[str]) -> None:
    assert passes(namespace)
    before = descriptors()
    for name in names:
        lock(namespace, name)
    assert await is_locked(namespace)
    assert not passes(namespace)
    assert await unlock(namespace)
    assert passes(namespace)
    assert not await is_locked(namespace)
    assert not await unlock(namespace)
    assert opened_since(before) == {}


async def test_more_of_them_than_one_answer_holds(namespace: Path) -> None:
    for number in range(150):
        name = f"{'of-others' * 20}-{number}"
        make(namespace, name).close()
    lock(namespace, BY_RUN)
    assert await unlock(namespace)
    assert passes(namespace)


async def test_those_of_others_stay(namespace: Path) -> None:
    lock(namespace, "firewall")
    lock(namespace, BY_RUN)
    assert await unlock(namespace)
    assert not passes(namespace)
    assert not await is_locked(namespace)


async def test_what_only_looks_like_one_is_nobodys_trouble(namespace: Path) -> None:
    """One that nobody but its owner can delete would keep operations in the journal for ever."""
    with make(namespace, BY_RUN, flags=OWNED):
        assert not await is_locked(namespace)
        assert not await unlock(namespace)


async def test_a_restore_leaves_what_it_had_found(namespace: Path) -> None:
    """It has made no second one."""
    lock(namespace, BY_RUN)
    assert not await unlock(namespace, to_one=True)
    assert await is_locked(namespace)


async def test_others_who_open_it_at_the_same_time(namespace: Path) -> None:
    for number in range(100):
        lock(namespace, f"CRIU-{number}")
    assert any(await asyncio.gather(*(unlock(namespace) for _ in range(4))))
    assert passes(namespace)


async def test_a_kernel_that_refuses_is_no_open_network(
    namespace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is told of no table, and asked for all: it knows the name, and the rest not."""
    lock(namespace, BY_RUN)
    monkeypatch.setattr(nftables, "_DELETE_TABLE", 10 << 8 | 99)
    with pytest.raises(NetworkStuck, match="nftables: ") as raised:
        await unlock(namespace)
    assert raised.value.network == str(namespace)
    assert await is_locked(namespace)


async def test_a_kernel_without_nf_tables(namespace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no such sockets, or does not know what it is asked for."""
    lock(namespace, BY_RUN)
    with monkeypatch.context() as other:
        other.setattr(nftables, "_GET_TABLE", 99 << 8 | 1)
        assert not await is_locked(namespace)
    monkeypatch.setattr(nftables, "_NETLINK_NETFILTER", 27)
    assert not await is_locked(namespace)


async def test_in_the_nodes_own_network_another_may_be_at_work() -> None:
    own, name = Path("/proc/self/ns/net"), f"CRIU-{os.getpid()}"
    make(own, name).close()
    try:
        assert not await is_locked(own)
        assert not await unlock(own)
    finally:
        remove(own, name)
