"""The workloads do what they say, and plain runc with plain CRIU can checkpoint and restore them.

Whatever fails elsewhere with one of them is then the agent's doing, not the workload's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.bundle import COUNTER, family, generations, memory
from bench.client import connected
from bench.generations import check
from bench.leftovers import cgroup_paths, mounts_below
from bench.reports import Counter, Family, Generations, Memory, wait_until
from bench.runc import Container, RuncRoot, runc_root

pytestmark = [pytest.mark.root, pytest.mark.criu]

TCP = "--tcp-established"


def blocks(images: Path) -> Iterator[bytes]:
    """The contents of all pages images in a directory."""
    for path in sorted(images.glob("pages-*.img")):
        yield path.read_bytes()


def stop_and_restore(container: Container, *extra: str) -> Container:
    """Checkpoint it to a directory, which ends it, and restore it under another id."""
    images = container.runc.directory / "images"
    container.checkpoint(images, *extra)
    wait_until(lambda: container.status() == "absent", "the container ending")
    return container.runc.restore(container.bundle, images, "restored", *extra)


def test_counter_counts_and_notices_a_pause(runc: RuncRoot) -> None:
    container = runc.start(runc.build(COUNTER))
    report = container.report("counter")
    report.wait_beyond(Counter.TICKS, report.read(Counter.TICKS))

    runc.run("pause", container.id)
    paused_at = time.monotonic()
    wait_until(lambda: time.monotonic() - paused_at > 0.2, "0.2 s going by")
    paused = time.monotonic() - paused_at
    runc.run("resume", container.id)

    wait_until(lambda: report.read(Counter.GAP_NS) >= paused * 1e9, "the gap being recorded")
    gap = report.read(Counter.GAP_NS)
    report.ask(Counter.RESET, Counter.RESET_DONE)
    assert report.read(Counter.GAP_NS) != gap


def test_counter_goes_on_from_the_image(runc: RuncRoot) -> None:
    container = runc.start(runc.build(COUNTER))
    report = container.report("counter")
    before = report.wait_beyond(Counter.TICKS, 10)
    container.checkpoint(runc.directory / "images", "--leave-running")
    after = report.read(Counter.TICKS)
    killed_at = report.wait_beyond(Counter.TICKS, after + 50)
    container.delete()

    runc.restore(container.bundle, runc.directory / "images", "restored")

    wait_until(lambda: report.read(Counter.RESUMES) == 1, "the counter going on")
    assert before <= report.read(Counter.RESUMED_FROM) <= after < killed_at


def test_generations_image_is_of_one_moment(runc: RuncRoot) -> None:
    container = runc.start(runc.build(generations(16)))
    report = container.report("generations")
    report.wait_beyond(Generations.GENERATION, 3)

    restored = stop_and_restore(container)

    verdict = check(blocks(runc.directory / "images"), pages=report.read(Generations.PAGES))
    assert verdict.pages == 16 * 256
    assert verdict.problems == ()
    assert verdict.generation > 3
    report.wait_beyond(Generations.GENERATION, verdict.generation + 2)
    assert report.read(Generations.ERRORS) == 0
    assert restored.status() == "running"


def test_memory_comes_back_unchanged(runc: RuncRoot) -> None:
    container = runc.start(runc.build(memory(32)))
    report = container.report("memory")
    checksum = report.read(Memory.CHECKSUM)
    assert report.read(Memory.BYTES) == 32 << 20

    stop_and_restore(container)

    report.write(Memory.CHECKSUM, 0)
    report.ask(Memory.VERIFY, Memory.VERIFIED)
    assert report.read(Memory.CHECKSUM) == checksum
    assert report.read(Memory.FAILURES) == 0


def test_family_passes_its_token_over_every_channel(runc: RuncRoot) -> None:
    container = runc.start(runc.build(family(), netns=runc.network()))
    report = container.report("family")
    report.wait_beyond(Family.LAPS, 20)
    report.ask(Family.PROBE, Family.PROBED)

    stop_and_restore(container, TCP)

    report.wait_beyond(Family.LAPS, report.read(Family.LAPS) + 20)
    report.ask(Family.PROBE, Family.PROBED)
    echoes = 4  # two listeners, probed before and after
    wait_until(lambda: report.read(Family.ECHOES) == echoes, "both listeners echoing again")
    hops = [report.read(Family.HOPS + member) for member in range(5)]
    assert report.read(Family.ERRORS) == 0
    assert min(hops) > 40


def test_family_keeps_a_client_that_is_outside(runc: RuncRoot) -> None:
    network = runc.network()
    container = runc.start(runc.build(family(), netns=network))
    with connected(network, container.report("family").read(Family.LISTEN_PORT)) as client:
        assert client.echo(b"before\n") == b"before\n"

        stop_and_restore(container, TCP)

        assert client.echo(b"after\n") == b"after\n"


def test_two_workloads_share_a_container(runc: RuncRoot) -> None:
    container = runc.start(runc.build(COUNTER, memory(8)))

    processes = runc.run("ps", container.id)

    assert "/bin/counter" in processes
    assert "/bin/memory" in processes
    container.report("memory").ask(Memory.VERIFY, Memory.VERIFIED)


def test_nothing_is_left_whatever_state_the_containers_are_in() -> None:
    if os.geteuid() != 0:
        pytest.skip("containers need root")
    with runc_root() as runc:
        paused, running = (runc.start(runc.build(COUNTER, memory(4))) for _ in range(2))
        runc.run("pause", paused.id)
        network = runc.network()
        pids = [paused.pid(), running.pid()]
        cgroups = [paused.bundle.cgroup, running.bundle.cgroup]
        assert all(map(cgroup_paths, cgroups))
        assert list(mounts_below(runc.directory)) == [str(network)]

    assert not runc.directory.exists()
    assert list(mounts_below(runc.directory)) == []
    assert not any(map(cgroup_paths, cgroups))
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "processes ending")
