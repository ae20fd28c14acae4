"""Containers of runc on cgroup v2, in cgroups that runc makes itself and in systemd's scopes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.host.runc import load
from agent.targets import RuncTarget
from bench.bundle import COUNTER, Bundle, memory
from bench.reports import Counter, Memory, wait_until
from bench.runc import Container, RuncRoot, runc_root
from tests.system.inside.node import PATIENCE, cli, prop

pytestmark = pytest.mark.timeout(900)


def _bundle(runc: RuncRoot, driver: str) -> Bundle:
    bundle = runc.build(COUNTER, memory(8))
    if driver == "systemd":
        config = bundle.path / "config.json"
        spec = json.loads(config.read_text())
        spec["linux"]["cgroupsPath"] = f"system.slice:runc:{bundle.cgroup}"
        config.write_text(json.dumps(spec))
    return bundle


def _start(runc: RuncRoot, bundle: Bundle, driver: str) -> Container:
    words = ["--systemd-cgroup"] if driver == "systemd" else []
    runc.run(*words, "run", "-d", "--bundle", bundle.path, "web")
    bundle.wait_ready(timeout=PATIENCE)
    return Container(runc, "web", bundle)


def _cgroup(container: Container) -> Path:
    (line,) = Path(f"/proc/{container.pid()}/cgroup").read_text().splitlines()
    return Path("/sys/fs/cgroup" + line.removeprefix("0::"))


@pytest.mark.parametrize("driver", ["cgroupfs", "systemd"])
def test_there_and_back(tmp_path: Path, driver: str) -> None:
    """It runs on after the first checkpoint, ends with the second and comes back from that."""
    with runc_root() as runc:
        bundle = _bundle(runc, driver)
        container = _start(runc, bundle, driver)
        try:
            _there_and_back(container, tmp_path)
        finally:
            # Its scope is not where the root's own clearing looks.
            container.delete()


def _there_and_back(container: Container, store: Path) -> None:
    cgroup, report = _cgroup(container), container.report("counter")
    root = ("--runc-root", container.runc.path)
    first = cli("checkpoint", "web", "--store", store, *root)
    assert first["streamed"], first["fallback_reason"]
    report.wait_beyond(Counter.TICKS, report.read(Counter.TICKS) + 10, timeout=PATIENCE)
    assert (cgroup / "cgroup.freeze").read_text() == "0\n"

    last = cli("checkpoint", "web", "--stop", "--store", store, *root)
    wait_until(lambda: container.status() == "absent", "its end", timeout=PATIENCE)
    assert not cgroup.exists()
    ticks = report.read(Counter.TICKS)
    report.write(Counter.TICKS, 0)
    restored = cli("restore", last["path"], *root)
    assert restored["streamed"], restored["fallback_reason"]
    wait_until(lambda: report.read(Counter.RESUMES) == 1, "its going on", timeout=PATIENCE)
    assert 0 < report.read(Counter.RESUMED_FROM) <= ticks
    container.report("memory").ask(Memory.VERIFY, Memory.VERIFIED, timeout=PATIENCE)
    assert container.report("memory").read(Memory.FAILURES) == 0
    # In the cgroup that it had, and that is the one where runc and systemd look for it.
    assert _cgroup(container) == cgroup
    freezer = load(RuncTarget("web", container.runc.path)).freezer
    assert freezer is not None
    assert freezer.path == cgroup
    if cgroup.suffix == ".scope":
        assert prop("ActiveState", cgroup.name) == "active"
    again = cli("checkpoint", "web", "--store", store, *root)
    assert again["streamed"], again["fallback_reason"]
    assert (cgroup / "cgroup.freeze").read_text() == "0\n"
