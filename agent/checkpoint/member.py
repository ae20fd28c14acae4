"""One member's dump: streamed where CRIU can, through files where it cannot."""

from __future__ import annotations

from agent.checkpoint.job import BeforeThaw, Member, Taken
from agent.checkpoint.plain import PlainDump
from agent.checkpoint.streamed import CannotStream, StreamedDump
from agent.host import process
from agent.host.own_thread import in_own_thread
from agent.host.repair import end_repair
from agent.host.shield import to_the_end


async def dump_member(member: Member, before_thaw: BeforeThaw, *, stop: bool) -> Taken:
    """Have CRIU dump a container or process tree; when this returns, its images are copied out.

    Args:
        before_thaw: called while CRIU still holds the tasks.
        stop: whether CRIU is to end them then.

    Raises:
        DumpFailed, FrozenTooLong, TargetLost, StoreFailed: it runs as before, unless it is lost.
    """
    try:
        return await _dump(member, before_thaw, stop=stop)
    except BaseException:
        # Of a CRIU that was killed, and while whoever is frozen still is.
        if member.job.request.options.tcp_established:
            await to_the_end(in_own_thread(lambda: _free_sockets(member)))
        raise


def _free_sockets(member: Member) -> None:
    if member.subject.status != "stopped":
        end_repair(process.tree(member.subject.pid))


async def _dump(member: Member, before_thaw: BeforeThaw, *, stop: bool) -> Taken:
    reason = "the container has a terminal" if member.subject.terminal else None
    member.enter("dump")
    if reason is None:
        try:
            return Taken(await StreamedDump(member, before_thaw, stop=stop).run())
        except CannotStream as unable:
            reason = str(unable)
    return Taken(await PlainDump(member, reason, before_thaw, stop=stop).run(), reason)
