"""A CRIU that is told to lock with nftables: what it leaves when it dies is taken back, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import DumpFailed, RestoreFailed
from agent.host.network import is_locked
from bench.reports import wait_until
from tests.integration.aftermath import nothing_left
from tests.integration.agents import kill_together, recovered, restoring
from tests.integration.connections import KEPT, dumped, held_dump, idle
from tests.integration.lab import Lab
from tests.integration.trees import processes
from tests.integration.wired import HERE, PORT, wired
from tests.networks import Stream, connect, echoed, filter_rules

pytestmark = [pytest.mark.root, pytest.mark.criu]


@pytest.fixture(autouse=True)
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a machine's administrator does it."""
    file = tmp_path / "home" / ".criu" / "default.conf"
    file.parent.mkdir(parents=True)
    file.write_text("network-lock nftables\n")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


async def locked_by_a_table(network: Path) -> bool:
    return filter_rules(network) == [] and await is_locked(network)


async def test_a_checkpoint_disturbs_nobody(lab: Lab) -> None:
    at = wired(lab.runc)
    with Stream(at.outside, HERE, PORT) as client:
        client.goes_on()
        await lab.checkpoint(at.container, options=KEPT)
        client.goes_on()
    assert not await is_locked(at.inside)


async def test_criu_is_killed_in_a_dump(lab: Lab) -> None:
    at = wired(lab.runc)
    _, hooked = lab.hook("post-dump", "kill")
    with idle(at), nothing_left(lab), pytest.raises(DumpFailed):
        await hooked.checkpoint(at.container, stop=True, options=KEPT)
    assert not await is_locked(at.inside)


async def test_everybody_is_killed_in_a_dump(lab: Lab) -> None:
    at = wired(lab.runc)
    with idle(at), nothing_left(lab), held_dump(lab, at.container, "post-dump") as (criu, _):
        assert await locked_by_a_table(at.inside)
        kill_together(each.pid for each in processes(str(lab.state_dir)))
        criu.release()
        await recovered(lab)
    assert not await is_locked(at.inside)


async def test_everybody_is_killed_in_a_restore(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine where nobody says so: which lock it is stands in the images."""
    at = wired(lab.runc)
    with connect(at.outside, HERE, PORT) as client:
        assert echoed(client, b"there") == b"there"
        checkpoint_id = await dumped(lab, at, stop=False)
    monkeypatch.setenv("HOME", str(lab.directory))
    criu, _ = lab.hook("post-restore")
    path = f"{lab.store.url}/{checkpoint_id}"
    with nothing_left(lab), restoring(lab, path, criu):
        wait_until(criu.reached, "the hook being reached")
        assert await locked_by_a_table(at.inside)
        kill_together(each.pid for each in processes(str(lab.state_dir)))
        criu.release()
        await recovered(lab)
    assert not await is_locked(at.inside)
    await lab.restore(checkpoint_id)


async def test_a_restore_that_fails_leaves_connections_for_the_next(lab: Lab) -> None:
    at = wired(lab.runc)
    with Stream(at.outside, HERE, PORT) as client:
        client.goes_on()
        checkpoint_id = await dumped(lab, at, stop=True)
        assert await locked_by_a_table(at.inside)
        _, hooked = lab.hook("post-restore", "fail")
        with nothing_left(lab), pytest.raises(RestoreFailed):
            await hooked.restore(checkpoint_id)
        assert await locked_by_a_table(at.inside)
        await lab.restore(checkpoint_id)
        client.goes_on()
    assert not await is_locked(at.inside)


async def test_who_gives_connections_up_leaves_no_lock(lab: Lab) -> None:
    at = wired(lab.runc)
    await lab.checkpoint(at.container, stop=True)
    wait_until(lambda: at.container.status() == "absent", "the container ending")
    assert not await is_locked(at.inside)
