"""Connections: what a restore makes of what the dump was told, and where the network is."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import tcp
from agent.errors import InvalidArgument
from agent.host import network
from agent.manifest import Options
from agent.restore import for_new_network
from agent.restore.options import merged
from agent.tcp import POLICIES, Policy


def told(policy: Policy) -> Options:
    """What CRIU was told at a dump, beside something else."""
    return Options(link_remap=True).model_copy(update=tcp.flags(policy))


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_can_be_closed(policy: Policy) -> None:
    closed = merged(told(policy), for_new_network(Options()))
    assert closed == told("close")
    assert merged(told(policy), for_new_network(told(policy))) == closed


def test_closing_changes_nothing_else() -> None:
    asked = for_new_network(Options(file_locks=True))
    assert asked.model_fields_set == {*tcp.FIELDS, "file_locks"}
    assert merged(Options(link_remap=True), asked).link_remap


@pytest.mark.parametrize("policy", ["established", "skip-in-flight"])
def test_what_was_given_up_cannot_be_repaired(policy: Policy) -> None:
    with pytest.raises(InvalidArgument, match="given up") as refused:
        merged(told("close"), Options().model_copy(update=tcp.flags(policy)))
    assert refused.value.argument == "tcp"


def test_what_was_given_up_stays_so_when_nothing_is_said() -> None:
    assert merged(told("close"), None) == told("close")
    assert merged(told("close"), Options(shell_job=True)).tcp_close
    # CRIU restores an image without connections only when it is told so.
    assert merged(told("close"), Options(tcp_close=False)).tcp_close


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({}, None),
        ({"linux": None}, None),
        ({"linux": {"namespaces": "none"}}, None),
        ({"linux": {"namespaces": [{"type": "pid", "path": "/p"}]}}, None),
        ({"linux": {"namespaces": [{"type": "network"}]}}, None),
        ({"linux": {"namespaces": [{"type": "network", "path": ""}]}}, None),
        ({"linux": {"namespaces": ["network", {"type": "network", "path": 3}]}}, None),
        ({"linux": {"namespaces": [{"type": "network", "path": "/n"}]}}, Path("/n")),
    ],
)
def test_the_network_that_a_container_joins(config: dict[str, object], path: Path | None) -> None:
    assert network.joined(config) == path


@pytest.mark.root
async def test_a_network_that_is_gone_is_not_locked(tmp_path: Path) -> None:
    assert not await network.is_locked(tmp_path / "gone")
    assert not await network.unlock(tmp_path / "gone")
