"""Nothing stays frozen that was not so before, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.host import cgroup
from agent.operation.freeze import CannotFreeze, frozen, thawed_afterwards
from tests.cgroups import Echo, echo
from tests.waiting import PATIENCE

pytestmark = pytest.mark.root


@pytest.fixture(params=[1, 2], ids=["v1", "v2"])
def task(request: pytest.FixtureRequest) -> Iterator[Echo]:
    with echo(request.param) as made:
        yield made


def test_what_somebody_froze_meanwhile_is_thawed(task: Echo) -> None:
    with thawed_afterwards(task.freezer):
        task.freezer.freeze()

    assert task.runs()


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt, GeneratorExit])
def test_also_when_it_fails(task: Echo, error: type[BaseException]) -> None:
    def fail() -> None:
        with thawed_afterwards(task.freezer):
            task.freezer.freeze()
            raise error

    with pytest.raises(error):
        fail()

    assert task.runs()


def test_what_nobody_froze_runs_on(task: Echo) -> None:
    with thawed_afterwards(task.freezer):
        assert task.runs()
    assert task.runs()


def test_what_its_owner_paused_stays_paused(task: Echo) -> None:
    task.freezer.freeze()

    with thawed_afterwards(task.freezer):
        pass
    assert not task.runs()

    with pytest.raises(KeyError), thawed_afterwards(task.freezer):
        raise KeyError
    assert not task.runs()


def test_what_its_owner_resumed_meanwhile_runs_on(task: Echo) -> None:
    task.freezer.freeze()

    with thawed_afterwards(task.freezer):
        task.freezer.thaw()

    assert task.runs()


def test_what_is_gone_meanwhile_needs_no_thawing(task: Echo) -> None:
    with thawed_afterwards(task.freezer):
        task.end()
        task.freezer.path.rmdir()


def test_no_freezer_at_all() -> None:
    with thawed_afterwards(None):
        pass
    with pytest.raises(KeyError), thawed_afterwards(None):
        raise KeyError


async def test_frozen_as_long_as_the_block_lasts(task: Echo) -> None:
    async with frozen([task.freezer]):
        assert task.freezer.is_frozen()
        assert not task.runs()

    assert task.runs()


async def test_and_no_longer_when_it_fails(task: Echo) -> None:
    with pytest.raises(KeyError):
        async with frozen([task.freezer]):
            raise KeyError

    assert task.runs()


async def test_a_pause_outlasts_the_block(task: Echo) -> None:
    task.freezer.freeze()

    async with frozen([task.freezer]):
        assert not task.runs()

    assert not task.runs()


async def test_several_stand_still_together(task: Echo) -> None:
    with echo(task.freezer.version) as other:
        other.freezer.freeze()
        async with frozen([task.freezer, other.freezer]) as freeze:
            assert not task.runs()
            assert not other.runs()
            so_far = freeze.seconds

        assert task.runs()
        assert not other.runs(), "its owner has paused it"
        whole = freeze.seconds
        assert 0 < so_far < whole == freeze.seconds


def stubborn(directory: Path) -> cgroup.Freezer:
    """One with a task that cannot be frozen: what the kernel then shows, as plain files."""
    directory.mkdir()
    (directory / "cgroup.freeze").write_text("0")
    (directory / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    return cgroup.Freezer(directory, 2)


async def test_a_freeze_that_does_not_succeed_is_undone(
    task: Echo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first one has to freeze within it.
    monkeypatch.setattr(cgroup, "FREEZE_TIMEOUT", 0.5)
    one = stubborn(tmp_path / "one")

    with pytest.raises(CannotFreeze, match="did not freeze") as caught:
        async with frozen([task.freezer, one]):
            pass

    assert caught.value.freezer == one
    assert (one.path / "cgroup.freeze").read_text() == "0"
    assert task.runs()


async def test_one_that_is_gone_cannot_be_frozen(task: Echo, tmp_path: Path) -> None:
    gone = cgroup.Freezer(tmp_path / "gone", task.freezer.version)

    with pytest.raises(CannotFreeze, match="No such file"):
        async with frozen([task.freezer, gone]):
            pass

    assert task.runs()


async def test_whoever_is_given_up_while_it_freezes_leaves_nothing_frozen(
    task: Echo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup, "FREEZE_TIMEOUT", 3600.0)
    one = stubborn(tmp_path / "one")

    async def hold() -> None:
        async with frozen([task.freezer, one]):
            pass

    holding = asyncio.create_task(hold())
    try:
        async with asyncio.timeout(PATIENCE):
            while not task.freezer.is_frozen():
                await asyncio.sleep(0.001)
    finally:
        holding.cancel()
        # It is waited for, and freezes at last.
        (one.path / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    with pytest.raises(asyncio.CancelledError):
        await holding

    assert task.runs()
    assert (one.path / "cgroup.freeze").read_text() == "0"
