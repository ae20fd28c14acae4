"""One dump of a member by runc or CRIU.

runc is told to checkpoint and finds the launcher under the name ``criu``; for a process tree the
agent starts the launcher itself. Either way CRIU is their child and the agent only holds the
sockets: when the agent dies, CRIU loses its reader and rolls back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agent.checkpoint.job import Member
from agent.errors import DumpFailed, TargetLost
from agent.host import criu, runc
from agent.operation.attempt import attempt, complaint
from agent.targets import RuncTarget


async def dump(member: Member, *, leave_running: bool, hang_up: Callable[[], None] | None) -> None:
    """Dump until it is over one way or another.

    Args:
        hang_up: closes what CRIU writes into, so that it fails by itself and puts everything back.
            Without, nothing but a signal would end it, which may cost the tasks their lives: the
            pipeline's failure has to be looked for afterwards.

    Raises:
        TargetNotCheckpointable: it has ended, and nothing was dumped; or what was is another one.
        DumpFailed, TargetLost: it did not work.
    """
    member.subject.refuse_another()
    command = _command(member, leave_running=leave_running)
    status = await attempt(
        command,
        member.place,
        failed=asyncio.Event() if hang_up is None else member.job.failed,
        hang_up=hang_up or _nothing,
    )
    if status:
        if member.subject.is_replaced:
            member.subject.refuse_another()
        raise _failure(member, status)


def _command(member: Member, *, leave_running: bool) -> list[str]:
    place, target, options = member.place, member.subject.target, member.job.request.options
    if not isinstance(target, RuncTarget):
        arguments = criu.dump_arguments(
            target.pid, options, work_dir=place.work, leave_running=leave_running
        )
        return [str(place.launcher / "criu"), "direct", str(place.images), *arguments]
    return [
        *runc.command(member.job.tools, target.root, log=place.work / "runc.log"),
        "checkpoint",
        *("--image-path", str(place.images), "--work-path", str(place.work)),
        *runc.checkpoint_arguments(options, leave_running=leave_running),
        target.container,
    ]


def _nothing() -> None:
    """Nobody reads along, so there is nothing to hang up."""


def _failure(member: Member, status: int) -> DumpFailed | TargetLost:
    reason, log = complaint(member.place, "dump.log", status)
    target, state = str(member), member.subject.status
    if state == "stopped":
        return TargetLost(target, state, reason, log)
    return DumpFailed(target, reason, log)
