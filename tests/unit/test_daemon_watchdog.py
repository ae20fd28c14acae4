"""What the service manager hears, on a socket like its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from agent.daemon.watchdog import Notifier, heartbeat, watchdog_seconds
from agent.errors import StoreFailed

SILENCE = 0.3


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The manager's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(20)
        yield listening


def _notifier(manager: socket.socket) -> Notifier:
    return Notifier({"NOTIFY_SOCKET": manager.getsockname()})


async def _idle() -> None:
    """A probe that answers."""


async def _hear(manager: socket.socket) -> bytes:
    return await asyncio.to_thread(manager.recv, 4096)


async def test_the_watchdog_is_answered_again_and_again(manager: socket.socket) -> None:
    beating = asyncio.create_task(heartbeat(_notifier(manager), 0.02, _idle))
    assert await _hear(manager) == b"WATCHDOG=1"
    assert await _hear(manager) == b"WATCHDOG=1"
    beating.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await beating


async def test_a_stuck_probe_leaves_the_watchdog_without_an_answer(
    manager: socket.socket,
) -> None:
    stuck = asyncio.Event()
    beating = asyncio.create_task(heartbeat(_notifier(manager), 0.02, stuck.wait))
    await asyncio.sleep(SILENCE)
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(4096)
    manager.settimeout(20)
    stuck.set()
    assert await _hear(manager) == b"WATCHDOG=1"
    beating.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await beating


async def test_a_probe_that_fails_has_answered(manager: socket.socket) -> None:
    async def fail() -> None:
        raise StoreFailed("read", "/journal", "no space left")

    beating = asyncio.create_task(heartbeat(_notifier(manager), 0.02, fail))
    assert await _hear(manager) == b"WATCHDOG=1"
    beating.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await beating


async def test_readiness_and_its_end_are_told(manager: socket.socket) -> None:
    notifier = _notifier(manager)
    notifier.ready("3 pods")
    notifier.stopping()
    assert await _hear(manager) == b"READY=1\nSTATUS=3 pods"
    assert (await _hear(manager)).startswith(b"STOPPING=1")


def test_without_a_manager_nothing_is_sent_and_nothing_fails(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Only the environment that it is given counts.
    monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname())
    Notifier({}).ready("alone")
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(4096)
    # Nor was it tried.
    assert caplog.text == ""


def test_a_manager_that_is_gone_is_no_reason_to_fail(tmp_path: Path) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).alive()


async def test_an_abstract_socket_is_one_too() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("")  # the kernel chooses a name
        manager.settimeout(20)
        name = manager.getsockname().decode().replace("\0", "@")
        Notifier({"NOTIFY_SOCKET": name}).alive()
        assert await _hear(manager) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
    ids=["none", "asked", "somebody else's", "nonsense"],
)
def test_how_often_is_what_the_environment_says(
    environ: Mapping[str, str], seconds: float | None
) -> None:
    assert watchdog_seconds(environ) == seconds
