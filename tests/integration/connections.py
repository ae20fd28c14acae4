"""Clients with a connection to a container while something dies that works on it."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.reports import Service, wait_until
from bench.runc import Container
from tests.fakes.hooked_criu import HookedCriu
from tests.integration.agents import checkpointing
from tests.integration.lab import Lab
from tests.integration.wired import HERE, PORT, Wired, options
from tests.networks import connect, echoed, filter_rules

KEPT = options("skip-in-flight")


@contextmanager
def idle(at: Wired) -> Iterator[socket.socket]:
    """A client over whose connection nothing goes meanwhile, and which works afterwards."""
    with connect(at.outside, HERE, PORT) as client:
        assert echoed(client, b"before") == b"before"
        yield client
        assert echoed(client, b"after") == b"after"
        assert filter_rules(at.inside) == []
        assert (at.report.read(Service.ENDED), at.report.read(Service.BROKEN)) == (0, 0)


@contextmanager
def held_dump(lab: Lab, target: Container | int, hook: str) -> Iterator[tuple[HookedCriu, int]]:
    """Another agent's checkpoint that has come to a hook; its CRIU and its pid."""
    criu, _ = lab.hook(hook)
    words = ("--tcp", "skip-in-flight")
    with checkpointing(lab, target, criu, *words, stop=True) as agent:
        wait_until(criu.reached, "the hook being reached")
        yield criu, agent.pid


async def dumped(lab: Lab, at: Wired, *, stop: bool) -> str:
    """A checkpoint with a connection; the container is gone."""
    done = await lab.checkpoint(at.container, stop=stop, options=KEPT)
    if not stop:
        at.container.delete()
    wait_until(lambda: at.container.status() == "absent", "the container ending")
    return done.checkpoint_id


@pytest.fixture
def busy(tmp_path: Path) -> str:
    """A PATH with an `iptables` that tells of a lock and takes none back. CRIU has another."""
    program = tmp_path / "busy" / "iptables"
    program.parent.mkdir()
    real = shutil.which("iptables")
    script = f'#!/bin/sh\n[ $# = 2 ] && exec {real} "$@"\necho it is busy >&2\nexit 4\n'
    program.write_text(script)
    program.chmod(0o700)
    return f"{program.parent}:{os.environ['PATH']}"
