"""One dump of a subject by runc or CRIU.

runc is told to checkpoint and finds the launcher under the name ``criu``; for a process tree the
agent starts the launcher itself. Either way CRIU is their child and the agent only holds the
sockets: when the agent dies, CRIU loses its reader and rolls back.
"""

from __future__ import annotations

from collections.abc import Callable

from agent.checkpoint.job import Job
from agent.errors import DumpFailed, TargetLost
from agent.host import criu, runc
from agent.operation.attempt import attempt, complaint
from agent.targets import RuncTarget


async def dump(job: Job, *, leave_running: bool, hang_up: Callable[[], None]) -> None:
    """Dump until it is over one way or another.

    Args:
        hang_up: closes what CRIU writes into, so that it fails by itself and puts everything back.

    Raises:
        DumpFailed, TargetLost: it did not work.
    """
    command = _command(job, leave_running=leave_running)
    status = await attempt(command, job.operation, failed=job.failed, hang_up=hang_up)
    if status:
        raise _failure(job, status)


def _command(job: Job, *, leave_running: bool) -> list[str]:
    operation, target, options = job.operation, job.request.target, job.request.options
    if not isinstance(target, RuncTarget):
        arguments = criu.dump_arguments(
            target.pid, options, work_dir=operation.work, leave_running=leave_running
        )
        return [str(operation.launcher / "criu"), "direct", str(operation.images), *arguments]
    return [
        *runc.command(job.tools, target.root, log=operation.work / "runc.log"),
        "checkpoint",
        *("--image-path", str(operation.images), "--work-path", str(operation.work)),
        *runc.checkpoint_arguments(options, leave_running=leave_running),
        target.container,
    ]


def _failure(job: Job, status: int) -> DumpFailed | TargetLost:
    reason, log = complaint(job.operation, "dump.log", status)
    target, state = str(job.request.target), job.subject.status
    if state == "stopped":
        return TargetLost(target, state, reason, log)
    return DumpFailed(target, reason, log)
