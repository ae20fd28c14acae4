"""Starts bundles under the real runc, each in a runc root of its own that is always cleared."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.config import find_tools
from bench.bundle import Bundle, Workload, build_bundle
from bench.leftovers import clear_cgroup, unmount_below
from bench.reports import Report

Argument = str | os.PathLike[str]


class RuncFailed(Exception):
    """A runc command failed; the text is the command, its output and its log."""


@dataclass(frozen=True, slots=True)
class RuncRoot:
    """A runc ``--root`` with everything around it, all below ``directory``."""

    directory: Path

    @property
    def path(self) -> Path:
        """What to pass as ``--root`` (and to the agent as ``--runc-root``)."""
        return self.directory / "root"

    def environment(self) -> dict[str, str]:
        """The environment of runc: the project's CRIU is the ``criu`` that it finds."""
        return os.environ | {"PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}"}

    def run(self, *args: Argument, env: dict[str, str] | None = None) -> str:
        """Run ``runc --root ... ARGS`` with /dev/null as its and its container's streams.

        Raises:
            RuncFailed: it ended with an error.
        """
        log = self.directory / f"runc-{uuid.uuid4().hex[:8]}.log"
        argv = [find_tools().require_runc(), "--root", self.path, "--log", log, *args]
        detached = bool({"-d", "--detach"} & set(map(str, args)))
        out = subprocess.DEVNULL if detached else subprocess.PIPE
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, text=True,
                              env=env or self.environment(), check=False)  # fmt: skip
        said = log.read_text(errors="replace") if log.exists() else ""
        log.unlink(missing_ok=True)
        if done.returncode != 0:
            said += _criu_errors(self.directory)
            raise RuncFailed(f"{' '.join(map(str, argv))}\n{done.stderr or ''}{said}")
        return done.stdout or ""

    def build(
        self,
        *workloads: Workload,
        netns: Path | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Bundle:
        """A new bundle inside ``directory``."""
        return build_bundle(self.directory / f"bundle-{uuid.uuid4().hex[:8]}", *workloads,
                            netns=netns, annotations=annotations)  # fmt: skip

    def network(self) -> Path:
        """A new network namespace with a working ``lo``, to pass as ``netns``.

        A restored container gets an empty one of its own unless it joins one, as in a pod, and TCP
        connections can only come back where their addresses are.
        """
        path = self.directory / f"netns-{uuid.uuid4().hex[:8]}"
        path.touch()
        for argv in (
            ["unshare", f"--net={path}", "true"],
            ["nsenter", f"--net={path}", "busybox", "ip", "link", "set", "lo", "up"],
        ):
            subprocess.run(argv, stdin=subprocess.DEVNULL, check=True)
        return path

    def start(self, bundle: Bundle, container_id: str | None = None) -> Container:
        """``runc run -d`` the bundle and wait until its workloads are up.

        Raises:
            RuncFailed: runc could not start it.
            Stalled: a workload did not get ready.
        """
        name = container_id or f"c-{uuid.uuid4().hex[:8]}"
        self.run("run", "-d", "--bundle", bundle.path, name)
        bundle.wait_ready()
        return Container(self, name, bundle)

    def restore(self, bundle: Bundle, images: Path, container_id: str, *extra: str) -> Container:
        """Plain ``runc restore -d`` from a directory of images."""
        self.run("restore", "-d", "--bundle", bundle.path, "--image-path", images,
                 "--work-path", images, *extra, container_id)  # fmt: skip
        return Container(self, container_id, bundle)

    def containers(self) -> list[str]:
        """The ids of all containers here, whatever their state."""
        return sorted(entry.name for entry in self.path.iterdir() if entry.is_dir())

    def clear(self) -> None:
        """Remove every container, then what a failed or killed operation may have left."""
        for name in self.containers():
            program = find_tools().require_runc()
            subprocess.run([program, "--root", self.path, "delete", "--force", name],
                           stdin=subprocess.DEVNULL, capture_output=True, check=False)  # fmt: skip
        for config in self.directory.glob("*/config.json"):
            clear_cgroup(json.loads(config.read_text())["linux"]["cgroupsPath"].lstrip("/"))
        unmount_below(self.directory)


def _criu_errors(directory: Path) -> str:
    """The error lines of the newest CRIU log below ``directory``."""
    logs = sorted(directory.rglob("*.log"), key=lambda log: log.stat().st_mtime)
    lines = logs[-1].read_text(errors="replace").splitlines() if logs else []
    return "\n".join(line for line in lines if "Error" in line or "Warn" in line)


@dataclass(frozen=True, slots=True)
class Container:
    """A container of a workload."""

    runc: RuncRoot
    id: str
    bundle: Bundle

    def status(self) -> str:
        """``running``, ``paused``, ``stopped``; ``absent`` when runc does not know it."""
        if self.id not in self.runc.containers():
            return "absent"
        return str(self._state()["status"])

    def pid(self) -> int:
        """The first process, as the host numbers it."""
        return int(str(self._state()["pid"]))

    def _state(self) -> dict[str, object]:
        state: dict[str, object] = json.loads(self.runc.run("state", self.id))
        return state

    def report(self, workload: str) -> Report:
        """The report page of one of its workloads."""
        return self.bundle.report(workload)

    def checkpoint(self, images: Path, *extra: str) -> None:
        """Plain ``runc checkpoint`` into a directory; stops it unless ``--leave-running``."""
        images.mkdir(parents=True, exist_ok=True)
        self.runc.run("checkpoint", "--image-path", images, "--work-path", images, *extra, self.id)

    def delete(self) -> None:
        """Kill it and remove it from runc."""
        self.runc.run("delete", "--force", self.id)


@contextmanager
def runc_root(parent: Path | None = None) -> Iterator[RuncRoot]:
    """An empty runc root; containers, cgroups, mounts and files of it are gone afterwards.

    Args:
        parent: where to put it. Keep it short: paths of unix sockets below it have 107 bytes.
    """
    directory = Path(tempfile.mkdtemp(prefix="runc-", dir=parent))
    root = RuncRoot(directory)
    try:
        root.path.mkdir()
        (directory / "bin").mkdir()
        (directory / "bin" / "criu").symlink_to(find_tools().criu)
        yield root
    finally:
        root.clear()
        shutil.rmtree(directory)


@contextmanager
def running(*workloads: Workload, netns: Path | None = None) -> Iterator[Container]:
    """A container of the workloads, up and ready; nothing of it is left when the block ends.

    The first workload is its first process. It has a runc root of its own, so whatever is restored
    there (``container.runc``) goes with it.
    """
    with runc_root() as runc:
        yield runc.start(runc.build(*workloads, netns=netns))
