"""What is about to be dumped: every reason to refuse is found before it is touched."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from agent.errors import TargetNotCheckpointable, TargetNotFound
from agent.gpu import GpuProcess
from agent.host import network, process, runc
from agent.host.boot import boot_id
from agent.host.cgroup import Freezer
from agent.targets import Birth, ProcessTarget, RuncTarget, Target

# What CRIU dumps without a word of a task that is in no container, and does not make again. With
# CRIU 4.2 its restore ends in a BUG of criu/mount.c, or with "Can't restore sub-task in NS"; and
# what a network is connected to is not the task's. Those of the other kinds it makes again, or
# refuses at the dump.
_NEVER_AGAIN = {"mnt": "mount", "net": "network", "user": "user"}


@dataclass(frozen=True, slots=True)
class Subject:
    """A container or process tree that can be dumped now.

    ``layer`` is its writable layer, if that is to be taken; ``gpu_processes`` are to be off their
    GPUs while it is dumped.
    """

    target: Target
    pid: int
    started: int
    freezer: Freezer | None = None
    bundle: Path | None = None
    config: bytes | None = None
    terminal: bool = False
    layer: Path | None = None
    gpu_processes: tuple[GpuProcess, ...] = ()

    @property
    def runc_root(self) -> str | None:
        """Where runc keeps the container; None for a process."""
        return str(self.target.root.resolve()) if isinstance(self.target, RuncTarget) else None

    @property
    def joined(self) -> Path | None:
        """The network namespace that a container shares, and that is there when it is not."""
        return network.joined(json.loads(self.config)) if self.config is not None else None

    @property
    def network(self) -> Path | None:
        """The namespace that CRIU locks; None for a process, whose connections it locks one by one,
        and for a container that took it along.
        """
        if self.config is None:
            return None
        alone = network.of_process(self.pid) if self.status != "stopped" else None
        return self.joined or alone

    @property
    def status(self) -> str:
        """``running``, ``paused`` or ``stopped``, as of now."""
        if not process.is_alive(self.pid, self.started):
            return "stopped"
        return "paused" if self.freezer and self.freezer.is_frozen() else "running"

    @property
    def is_replaced(self) -> bool:
        """Whether another process has its pid by now."""
        return self.status == "stopped" and process.is_alive(self.pid)

    def refuse_another(self) -> None:
        """To CRIU a process is a number, whoever has it now. A container's is looked at by runc.

        Raises:
            TargetNotCheckpointable: it has ended.
        """
        if isinstance(self.target, ProcessTarget) and self.status == "stopped":
            also = ", and another process has its pid" if self.is_replaced else ""
            raise TargetNotCheckpointable(str(self.target), f"it has ended{also}")


def examine(target: Target) -> Subject:
    """Facts about a target that can be checkpointed.

    Raises:
        TargetNotFound: it does not exist.
        TargetNotCheckpointable: it has ended, is the agent itself or one of its ancestors, or could
            not be restored.
        BundleInvalid: the container's bundle cannot be read.
    """
    if isinstance(target, ProcessTarget):
        return _examine_process(target)
    return _examine_container(target)


def _examine_container(target: RuncTarget) -> Subject:
    container = runc.load(target)
    if container.status == "stopped":
        raise TargetNotCheckpointable(str(target), "it is stopped")
    config = runc.read_config(container.bundle)
    _refuse_self(target, container.pid)
    return Subject(
        target=target,
        pid=container.pid,
        started=container.started,
        freezer=container.freezer,
        bundle=container.bundle,
        config=json.dumps(config).encode(),
        terminal=runc.has_terminal(config),
    )


def _examine_process(target: ProcessTarget) -> Subject:
    found = find_process(target)
    if found.state in "ZX":
        raise TargetNotCheckpointable(str(target), "it has ended")
    if (leader := process.leader(target.pid)) != target.pid:
        raise TargetNotCheckpointable(str(target), f"it is a thread of process {leader}")
    if process.is_kernel_thread(target.pid):
        raise TargetNotCheckpointable(str(target), "it is a kernel thread")
    _refuse_self(target, target.pid)
    _refuse_elsewhere(target)
    return Subject(target=target, pid=target.pid, started=found.started)


def find_process(target: ProcessTarget) -> process.ProcessStat:
    """Facts about the process that is meant.

    Raises:
        TargetNotFound: there is none, or by now another one has its pid.
    """
    found = process.stat(target.pid) if target.pid > 0 else None
    if found is None:
        raise TargetNotFound("process", str(target.pid))
    if target.birth not in (None, Birth(boot_id(), found.started)):
        where = " of when this was asked for: another one has its pid by now"
        raise TargetNotFound("process", str(target.pid), where)
    return found


def _refuse_self(target: Target, pid: int) -> None:
    if process.is_self_or_ancestor(pid):
        raise TargetNotCheckpointable(str(target), "the agent itself runs in it")


def _refuse_elsewhere(target: ProcessTarget) -> None:
    """A process of somebody's container, a service that systemd confines, a browser's sandbox."""
    ours = {kind: process.namespace(os.getpid(), kind) for kind in _NEVER_AGAIN}
    for pid in process.tree(target.pid):
        for kind, name in _NEVER_AGAIN.items():
            if process.namespace(pid, kind) not in (ours[kind], None):
                which = "it" if pid == target.pid else f"process {pid} below it"
                raise TargetNotCheckpointable(
                    str(target),
                    f"{which} is in another {name} namespace than the agent, and could not be"
                    " restored there; of a container, checkpoint that",
                )
