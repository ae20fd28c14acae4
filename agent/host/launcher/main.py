"""What happens when runc starts ``criu``, and when the agent starts CRIU on a process tree
itself.
"""

from __future__ import annotations

import os
import sys

from agent.host.launcher import wire
from agent.host.launcher.peers import Agent, Runc
from agent.host.launcher.relay import run_criu
from agent.host.launcher.translate import Options, Untranslatable

# Not typing's, which takes 5 ms to import; type checkers know the name.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_PR_SET_CHILD_SUBREAPER = 36

_STREAMERS = {wire.DUMP: "streamer-capture.sock", wire.RESTORE: "streamer-serve.sock"}


def main(criu: str, script: str, extra: list[str], config: str) -> None:
    """Entry of the generated ``criu``.

    Args:
        criu: the real one.
        script: where the action script goes.
        extra: options for a streamed dump or restore that runc has no words for.
        config: the same as a file, for what is not streamed. The real CRIU reads it also where it
            is asked over RPC; what it is asked then counts for more.
    """
    words = sys.argv[1:]
    if words[:1] == ["direct"]:
        _end(_direct(criu, script, images=words[1], arguments=words[2:]))
    if len(words) == 2 and words[0] == "swrk":
        # Held in a variable: the descriptor must stay open for the real CRIU.
        runc = Runc(int(words[1]))
        status = _service(criu, script, extra, runc)
        if status is not None:
            _end(status)
    os.execve(criu, [criu, *words], {**os.environ, "CRIU_CONFIG_FILE": config})


def _end(status: int) -> NoReturn:
    """runc waits for this process: taking the interpreter down in order would cost 3 ms."""
    os._exit(status)


def _direct(criu: str, script: str, *, images: str, arguments: list[str]) -> int:
    """Run CRIU for the agent, without a runc in between."""
    # CRIU and we connect to sockets in there, and a socket's path has 108 bytes at most.
    directory = os.open(images, os.O_PATH | os.O_DIRECTORY)
    images = f"/proc/{os.getpid()}/fd/{directory}"
    agent = Agent(images)
    _adopt_orphans()
    words = [*arguments, "--stream", "--images-dir", images]
    return run_criu(criu, words, script, agent.on_hook)


def _adopt_orphans() -> None:
    """Become the parent of tasks whose CRIU dies, so that they can be found and ended."""
    # Imported here: it takes 5 ms, and what runc starts does not need it.
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _service(criu: str, script: str, extra: list[str], runc: Runc) -> int | None:
    """Answer runc's request; None when the real CRIU is to take it, still unread."""
    kind, message = runc.peek()
    if kind not in _STREAMERS:
        return None
    options = Options(message)
    images = options.images_dir(runc.pid)
    if images is None or not os.path.exists(f"{images}/{_STREAMERS[kind]}"):
        return None
    agent = Agent(images)
    try:
        arguments = options.arguments(kind)
    except Untranslatable as reason:
        # The agent asked for a stream and has to know: it tries again without one.
        agent.fall_back(str(reason))
        runc.take()
        runc.finish(kind, success=False)
        return 1
    runc.take()
    arguments += [*extra, "--stream", "--images-dir", images]
    arguments += ["--work-dir", options.work_dir(runc.pid) or images]

    def on_hook(hook: str, pid: int) -> bool:
        return agent.on_hook(hook, pid) and (not options.wants_hooks or runc.notify(hook, pid))

    status = run_criu(criu, arguments, script, on_hook)
    runc.finish(kind, success=status == 0)
    return status
