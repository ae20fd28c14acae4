"""The pod: two containers of plain runc, with on them what a kubelet's runtime would note."""

from __future__ import annotations

from dataclasses import dataclass

from bench.bundle import COUNTER, Workload, memory
from bench.demo.screen import show
from bench.pods import build_container, uid_of
from bench.reports import Counter, Memory
from bench.runc import Container, RuncRoot

NAMESPACE, NAME = "default", "demo"
MEMORY = 384  # MiB: "a few hundred", and still done in seconds on two cores

# How far the counter must get between two steps, in ticks: about a second's worth.
A_SECOND = 450


class Different(Exception):
    """What came back is not what was checkpointed."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What the counter showed at each step."""

    before: int
    in_image: int
    killed_at: int
    after: int


@dataclass(frozen=True, slots=True)
class Pod:
    """Both containers; the same ones after a restore, which gives them the ids they had."""

    counter: Container
    memory: Container

    @property
    def uid(self) -> str:
        """As Kubernetes would have given it."""
        return uid_of(NAME)

    def count_on(self) -> int:
        """Let it count for about a second; how far it is."""
        report = self.counter.report("counter")
        return report.wait_beyond(Counter.TICKS, report.read(Counter.TICKS) + A_SECOND)

    def kill(self) -> int:
        """End both for good; how far it had counted."""
        for container in (self.counter, self.memory):
            show(["runc", "--root", container.runc.path, "delete", "--force", container.id])
            container.delete()
        return self.counter.report("counter").read(Counter.TICKS)

    def went_on(self, before: int, killed_at: int) -> Counts:
        """Both go on from the image, or Different is raised."""
        report, held = self.counter.report("counter"), self.memory.report("memory")
        report.wait_beyond(Counter.RESUMES, 0)
        in_image = report.read(Counter.RESUMED_FROM)
        after = report.wait_beyond(Counter.TICKS, in_image + A_SECOND)
        held.ask(Memory.VERIFY, Memory.VERIFIED)
        if report.read(Counter.RESUMES) != 1 or not before <= in_image <= killed_at:
            raise Different(f"the counter went on from {in_image}, not from the checkpoint")
        if held.read(Memory.FAILURES):
            raise Different("the memory's checksum has changed")
        return Counts(before, in_image, killed_at, after)


def start(runc: RuncRoot) -> Pod:
    """Show the commands and run them; both containers are up."""
    return Pod(_start(runc, "counter", COUNTER), _start(runc, "memory", memory(MEMORY)))


def _start(runc: RuncRoot, name: str, workload: Workload) -> Container:
    bundle = build_container(runc, NAME, name, workload)
    container_id = f"{NAME}-{name}"
    show(["runc", "--root", runc.path, "run", "--detach"], ["--bundle", bundle.path, container_id])
    return runc.start(bundle, container_id)
