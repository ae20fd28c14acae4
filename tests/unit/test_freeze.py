"""Nothing stays frozen that was not so before, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.host import cgroup
from agent.operation.freeze import frozen, thawed_afterwards
from tests.cgroups import Echo, echo

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


def test_frozen_as_long_as_the_block_lasts(task: Echo) -> None:
    with frozen(task.freezer):
        assert task.freezer.is_frozen()
        assert not task.runs()

    assert task.runs()


def test_and_no_longer_when_it_fails(task: Echo) -> None:
    with pytest.raises(KeyError), frozen(task.freezer):
        raise KeyError

    assert task.runs()


def test_a_pause_outlasts_the_block(task: Echo) -> None:
    task.freezer.freeze()

    with frozen(task.freezer):
        assert not task.runs()

    assert not task.runs()


def test_a_freeze_that_does_not_succeed_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that cannot be frozen: what the kernel then shows, as plain files."""
    (tmp_path / "cgroup.freeze").write_text("0")
    (tmp_path / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    monkeypatch.setattr(cgroup, "FREEZE_TIMEOUT", 0.01)

    with pytest.raises(TimeoutError), frozen(cgroup.Freezer(tmp_path, 2)):
        pass

    assert (tmp_path / "cgroup.freeze").read_text() == "0"
