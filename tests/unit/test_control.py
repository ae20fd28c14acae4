"""The agent's ear for hooks, and the launcher's own end of the line in another thread."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.host.launcher.peers import CONTROL_SOCKET, HELD_HOOK, Agent
from agent.operation.control import Control
from tests.waiting import descriptors, eventually_async, opened_since


@pytest.fixture
def images(tmp_path: Path) -> Path:
    path = tmp_path / "images"
    path.mkdir()
    return path


def answers(value: bool) -> Callable[[], Coroutine[None, None, bool]]:
    """An ``on_held`` that says so."""

    async def on_held() -> bool:
        return value

    return on_held


@asynccontextmanager
async def launching(images: Path) -> AsyncIterator[Agent]:
    """The launcher's end; its process would end where the block does."""
    launcher = await asyncio.to_thread(Agent, str(images))
    try:
        yield launcher
    finally:
        launcher._socket.close()


async def test_hooks_are_noted_with_their_time(images: Path) -> None:
    async with Control(images) as control:
        before = time.monotonic()
        async with launching(images) as launcher:
            for hook in ("pre-stream", "pre-dump", "network-lock"):
                assert await asyncio.to_thread(launcher.on_hook, hook, 4711)
            await eventually_async(lambda: len(control.hooks) == 3)

            assert list(control.hooks) == ["pre-stream", "pre-dump", "network-lock"]
            times = [before, *control.hooks.values(), time.monotonic()]
            assert times == sorted(times)
            assert control.untranslatable is None


@pytest.mark.parametrize("agreed", [True, False])
async def test_the_held_hook_is_answered(images: Path, agreed: bool) -> None:
    async with Control(images, answers(agreed)) as control, launching(images) as launcher:
        assert await asyncio.to_thread(launcher.on_hook, HELD_HOOK, 1) is agreed
        assert list(control.hooks) == [HELD_HOOK]


async def test_it_is_held_as_long_as_it_takes(images: Path) -> None:
    held, go = asyncio.Event(), asyncio.Event()

    async def on_held() -> bool:
        held.set()
        await go.wait()
        return True

    async with Control(images, on_held), launching(images) as launcher:
        waiting = asyncio.create_task(asyncio.to_thread(launcher.on_hook, HELD_HOOK, 1))
        await held.wait()
        assert not waiting.done()

        go.set()

        assert await waiting is True


@pytest.mark.parametrize(
    ("reason", "heard"),
    [
        ("lazy_pages", "lazy_pages"),
        ("configuration file /etc/a b.conf", "configuration file /etc/a b.conf"),
        ("file /a\nhook post-dump 1", "file /a hook post-dump 1"),
        ("file /\udcff", "file /?"),
    ],
)
async def test_a_reason_to_fall_back_is_known_before_the_launcher_goes_on(
    images: Path, reason: str, heard: str
) -> None:
    async with Control(images) as control, launching(images) as launcher:
        await asyncio.to_thread(launcher.fall_back, reason)

        assert control.untranslatable == heard
        assert control.hooks == {}


async def test_words_that_are_not_known_change_nothing(images: Path) -> None:
    async with Control(images, answers(True)) as control, launching(images) as launcher:
        await asyncio.to_thread(launcher._tell, "whatever it means")

        assert await asyncio.to_thread(launcher.on_hook, HELD_HOOK, 1)
        assert list(control.hooks) == [HELD_HOOK]


async def test_leaving_waits_for_a_launcher_that_is_still_at_work(images: Path) -> None:
    """It outlives a runc that was killed: CRIU rolls back under it."""
    async with launching_later(images) as (control, launcher):
        leaving = asyncio.create_task(control.__aexit__(None, None, None))
        assert await asyncio.to_thread(launcher.on_hook, HELD_HOOK, 1)
        assert not leaving.done()

        launcher._socket.close()

        await leaving
        assert list(control.hooks) == [HELD_HOOK]


@asynccontextmanager
async def launching_later(images: Path) -> AsyncIterator[tuple[Control, Agent]]:
    """A control that has been entered and heard a launcher; to be left by the test."""
    control = Control(images, answers(True))
    await control.__aenter__()
    async with launching(images) as launcher:
        await eventually_async(lambda: control._conversations)
        yield control, launcher


async def test_after_an_error_criu_is_not_let_go_on(images: Path) -> None:
    held, never = asyncio.Event(), asyncio.Event()

    async def on_held() -> bool:
        held.set()
        await never.wait()
        return True

    control = Control(images, on_held)
    await control.__aenter__()
    async with launching(images) as launcher:
        answer = asyncio.create_task(asyncio.to_thread(launcher.on_hook, HELD_HOOK, 1))
        await held.wait()

        leaving = asyncio.create_task(control.__aexit__(KeyError, KeyError(), None))

        assert await answer is False
        launcher._socket.close()
        await leaving


async def test_several_launchers_one_after_the_other(images: Path) -> None:
    """runc starts one for each of its requests."""
    async with Control(images, answers(True)) as control:
        for hook in ("first", "second"):
            async with launching(images) as launcher:
                await asyncio.to_thread(launcher.on_hook, hook, 1)
        await eventually_async(lambda: len(control.hooks) == 2)


async def test_an_agent_that_is_gone(images: Path) -> None:
    async with Control(images, answers(True)):
        pass

    with socket.socket(socket.AF_UNIX) as late, pytest.raises(ConnectionRefusedError):
        late.connect(str(images / CONTROL_SOCKET))


async def test_only_root_may_speak(images: Path) -> None:
    async with Control(images):
        assert await asyncio.to_thread(_mode, images / CONTROL_SOCKET) == 0o600


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


async def test_nothing_stays_open(images: Path) -> None:
    await asyncio.to_thread(time.monotonic)  # what the loop opens once
    before = descriptors()

    async with Control(images, answers(True)), launching(images) as launcher:
        assert await asyncio.to_thread(launcher.on_hook, HELD_HOOK, 1)

    await eventually_async(lambda: not opened_since(before))
