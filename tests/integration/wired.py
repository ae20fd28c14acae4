"""A container that serves clients, in a network namespace with a wire to another one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.manifest import Options
from agent.tcp import Policy, flags
from bench.bundle import Workload, service
from bench.reports import Report
from bench.runc import Container, RuncRoot
from tests.networks import add_address, devices, wire

PORT = 7000
HERE, THERE = "10.213.0.2", "10.213.0.1"
HERE_6, THERE_6 = "fd00:213::2", "fd00:213::1"
# Where the container is not: another address, as another pod has.
ELSEWHERE, BESIDE = "10.214.0.2", "10.214.0.1"


@dataclass(frozen=True, slots=True)
class Wired:
    """The container at HERE and HERE_6, and the namespace beyond, at THERE and THERE_6."""

    container: Container
    inside: Path
    outside: Path

    @property
    def report(self) -> Report:
        """What the service tells."""
        return self.container.report("service")


def options(policy: Policy) -> Options:
    """What CRIU is told for a policy."""
    return Options().model_copy(update=flags(policy))


def place(runc: RuncRoot, near: str, far: str) -> tuple[Path, Path]:
    """Two joined namespaces, with these addresses."""
    inside, outside = wire(runc, near)
    add_address(outside, devices(outside)[0], far)
    return inside, outside


def wired(
    runc: RuncRoot, *workloads: Workload, annotations: Mapping[str, str] | None = None
) -> Wired:
    """A container that runs the service, and workloads beside it."""
    inside, outside = place(runc, f"{HERE}/24", f"{THERE}/24")
    for network, address in ((inside, HERE_6), (outside, THERE_6)):
        add_address(network, devices(network)[0], f"{address}/64")
    bundle = runc.build(service(PORT), *workloads, netns=inside, annotations=annotations)
    return Wired(runc.start(bundle), inside, outside)


def move(container: Container, network: Path) -> None:
    """Have its bundle join another namespace: a restore comes up there."""
    path = container.bundle.path / "config.json"
    config = json.loads(path.read_text())
    for namespace in config["linux"]["namespaces"]:
        if namespace["type"] == "network":
            namespace["path"] = str(network)
    path.write_text(json.dumps(config))
