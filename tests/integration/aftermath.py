"""What has to be true after an operation that failed: as if it had never been begun."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter as Multiset
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from bench.leftovers import cgroup_paths, mounts_below
from bench.reports import Counter, Stalled, wait_until
from bench.runc import Container
from tests.integration.lab import Lab
from tests.integration.trees import processes
from tests.networks import filter_rules


@dataclass(frozen=True, slots=True)
class _Footprint:
    """What this process and the test's directories hold."""

    descriptors: tuple[tuple[str, str], ...]
    children: tuple[int, ...]
    threads: tuple[str, ...]
    processes: tuple[int, ...]
    operations: tuple[str, ...]
    files: tuple[str, ...]
    mounts: tuple[str, ...]


def _footprint(lab: Lab) -> _Footprint:
    threads = (thread.name for thread in threading.enumerate())
    store = Path(lab.store.url.removeprefix("file://"))
    return _Footprint(
        descriptors=tuple(sorted(_descriptors())),
        children=tuple(child.pid for child in psutil.Process().children()),
        # asyncio keeps the threads of its executor.
        threads=tuple(sorted(name for name in threads if not name.startswith("asyncio_"))),
        processes=tuple(sorted(each.pid for each in processes(str(lab.state_dir)))),
        operations=tuple(lab.operations()),
        files=tuple(sorted(str(path) for path in store.rglob("*"))),
        mounts=tuple(mounts_below(lab.directory)),
    )


def _descriptors() -> Iterator[tuple[str, str]]:
    for name in os.listdir("/proc/self/fd"):
        try:
            yield name, os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the descriptor of the listing itself


@contextmanager
def nothing_left(lab: Lab) -> Iterator[None]:
    """Fails if the block leaves a descriptor, process, thread, working file or stored object."""
    before = _footprint(lab)
    yield
    # What has been told to end takes a moment to be gone.
    try:
        wait_until(lambda: not _left(before, _footprint(lab)), "everything being gone", timeout=10)
    except Stalled as stalled:
        raise AssertionError(f"left: {_left(before, _footprint(lab))}") from stalled


def _left(before: _Footprint, after: _Footprint) -> dict[str, list[object]]:
    """What is there and was not before, by kind.

    What went meanwhile is no matter: a server of an earlier test may be closing connections yet.
    """
    was, now = asdict(before), asdict(after)
    left = {kind: list((Multiset(now[kind]) - Multiset(was[kind])).elements()) for kind in now}
    return {kind: things for kind, things in left.items() if things}


def is_frozen(container: Container) -> bool:
    """Whether its cgroup is frozen, or about to be."""
    states = []
    for path in cgroup_paths(container.bundle.cgroup):
        for control in ("freezer.state", "cgroup.freeze"):
            if (path / control).exists():
                states.append((path / control).read_text().strip())
    assert states, "it has no freezer"
    return any(state in ("FROZEN", "FREEZING", "1") for state in states)


def stood_still(container: Container, seconds: float) -> Callable[[], bool]:
    """A condition: it has not counted for as long."""
    report = container.report("counter")
    last, since = -1, time.monotonic()

    def condition() -> bool:
        nonlocal last, since
        ticks = report.read(Counter.TICKS)
        if ticks != last:
            last, since = ticks, time.monotonic()
        return time.monotonic() - since >= seconds

    return condition


def is_cut_off(container: Container) -> bool:
    """Whether a CRIU keeps its network namespace locked."""
    return bool(filter_rules(Path(f"/proc/{container.pid()}/ns/net")))


def assert_unharmed(container: Container) -> None:
    """It runs, thawed and connected, and counts; it has never been anything but itself."""
    report = container.report("counter")
    report.wait_beyond(Counter.TICKS, report.read(Counter.TICKS) + 10)
    assert container.status() == "running"
    assert not is_frozen(container)
    assert not is_cut_off(container)
    assert report.read(Counter.RESUMES) == 0


def tasks(container: Container) -> list[int]:
    """Processes in the container's cgroup, whatever runc knows of them."""
    found: set[int] = set()
    for path in cgroup_paths(container.bundle.cgroup):
        found.update(map(int, (path / "cgroup.procs").read_text().split()))
    return sorted(found)


def assert_gone(container: Container) -> None:
    """runc does not know it, and nothing of it runs."""
    assert container.runc.containers() == []
    assert tasks(container) == []
