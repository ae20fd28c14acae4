"""OCI bundles of busybox and workloads. bench/runc.py starts them."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.programs import program
from bench.reports import PATIENCE, Report
from bench.spec import container_spec

APPLETS = ("sh", "sleep", "cat", "ls", "ps")
FOLDERS = ("bin", "dev", "proc", "state", "sys", "tmp")


@dataclass(frozen=True, slots=True)
class Workload:
    """One program of bench/workloads with its arguments (after the report file)."""

    name: str
    arguments: tuple[str, ...] = ()

    def command(self) -> list[str]:
        """What to run inside the container."""
        return [f"/bin/{self.name}", f"/state/{self.name}", *self.arguments]


COUNTER = Workload("counter")


# Counts together with the others in its IPC namespace.
SEGMENT = Workload("segment")


def memory(mib: int) -> Workload:
    """``mib`` MiB: a quarter each random, float-like, text and zero."""
    return Workload("memory", (str(mib),))


def generations(mib: int) -> Workload:
    """``mib`` MiB that are rewritten all the time."""
    return Workload("generations", (str(mib),))


def family(port: int = 0) -> Workload:
    """Six processes with every kind of channel; port 0 takes any free one."""
    return Workload("family", (str(port),))


def service(port: int, peer: int | None = None) -> Workload:
    """A server at all addresses that returns every byte; also a client of the one at ``peer``."""
    return Workload("service", (str(port),) if peer is None else (str(port), str(peer)))


@dataclass(frozen=True, slots=True)
class Bundle:
    """A directory with config.json and rootfs; ``cgroup`` is the name it runs under, its own."""

    path: Path
    cgroup: str
    workloads: tuple[Workload, ...]

    def report(self, name: str) -> Report:
        """The report page of the workload called ``name``."""
        return Report(self.path / "rootfs" / "state" / name)

    def wait_ready(self, *, timeout: float = PATIENCE) -> None:
        """Wait until every workload has set itself up, or raise Stalled."""
        for workload in self.workloads:
            self.report(workload.name).wait_ready(timeout=timeout)


def build_bundle(
    path: Path,
    *workloads: Workload,
    netns: Path | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Bundle:
    """Write a bundle to the new directory ``path``.

    The first workload is the container's first process, the others are its children.
    """
    rootfs = path / "rootfs"
    for folder in FOLDERS:
        (rootfs / folder).mkdir(parents=True)
    busybox = shutil.which("busybox")
    if busybox is None:
        raise FileNotFoundError("busybox: install busybox-static")
    shutil.copy(busybox, rootfs / "bin" / "busybox")
    for applet in APPLETS:
        (rootfs / "bin" / applet).symlink_to("busybox")
    for workload in workloads:
        shutil.copy(program(workload.name), rootfs / "bin" / workload.name)
    cgroup = f"checkpoint-agent-{uuid.uuid4().hex[:12]}"
    spec = container_spec(
        args=_command(workloads),
        hostname="bench",
        cgroup=cgroup,
        netns=netns,
        annotations=annotations,
    )
    (path / "config.json").write_text(json.dumps(spec, indent=2))
    return Bundle(path, cgroup, workloads)


def _command(workloads: Sequence[Workload]) -> list[str]:
    first, *others = (workload.command() for workload in workloads)
    if not others:
        return first
    script = "".join(f"{' '.join(command)} & " for command in others) + f"exec {' '.join(first)}"
    return ["/bin/sh", "-c", script]
