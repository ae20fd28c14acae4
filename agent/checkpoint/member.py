"""One member's dump: streamed where CRIU can, through files where it cannot."""

from __future__ import annotations

from agent.checkpoint.job import BeforeThaw, Member, Taken
from agent.checkpoint.plain import PlainDump
from agent.checkpoint.streamed import CannotStream, StreamedDump


async def dump_member(member: Member, before_thaw: BeforeThaw, *, stop: bool) -> Taken:
    """Have CRIU dump a container or process tree; when this returns, its images are copied out.

    Args:
        before_thaw: called while CRIU still holds the tasks.
        stop: whether CRIU is to end them then.

    Raises:
        DumpFailed, TargetLost, StoreFailed: it runs as before, unless it is lost.
    """
    reason = "the container has a terminal" if member.subject.terminal else None
    member.enter("dump")
    if reason is None:
        try:
            return Taken(await StreamedDump(member, before_thaw, stop=stop).run())
        except CannotStream as unable:
            reason = str(unable)
    return Taken(await PlainDump(member, reason, before_thaw, stop=stop).run(), reason)
