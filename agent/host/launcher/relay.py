"""Runs CRIU, turns each of its action-script hooks into a line, and its answer into an exit status.

CRIU starts a script per hook with all descriptors closed. The script opens two pipes of this
process through /proc: when this process is gone they cannot be opened, and when it goes while the
script waits the read ends; either way the script fails and CRIU rolls back. Nothing can hang on a
dead relay. A dash script takes 1 ms a hook; a Python one would take 10 ms, inside the freeze.
"""

from __future__ import annotations

import os
from _collections_abc import Callable, Sequence
from select import POLLIN, poll

# On every Linux. `import signal` and `collections.abc` bring enum and collections: 5 ms together.
_SIGPIPE = 13

# Also children whose end is announced with another signal than SIGCHLD.
_WALL = 0x40000000
_SIGKILL = 9

# A script that a signal ends counts as one that agrees, in CRIU's post-dump: no SIGPIPE, then.
_SCRIPT = """#!/bin/sh
trap '' PIPE
exec 3>/proc/{pid}/fd/{ask} 4</proc/{pid}/fd/{answer} || exit 1
echo "$CRTOOLS_SCRIPT_ACTION ${{CRTOOLS_INIT_PID:-0}}" >&3 || exit 1
read -r word <&4 && [ "$word" = ok ]
"""

# Hook name and, where CRIU knows it, the pid of the root task; False makes the hook fail.
OnHook = Callable[[str, int], bool]


def run_criu(criu: str, arguments: Sequence[str], script: str, on_hook: OnHook) -> int:
    """Run ``criu`` with hooks; returns its exit status, or 128 + the signal that ended it.

    Args:
        script: where to write the action script.
    """
    ask_read, ask_write = os.pipe()
    answer_read, answer_write = os.pipe()
    text = _SCRIPT.format(pid=os.getpid(), ask=ask_write, answer=answer_read)
    with open(os.open(script, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o700), "w") as file:
        file.write(text)
    # Python ignores SIGPIPE; restored tasks must not inherit that.
    pid = os.posix_spawn(
        criu,
        [criu, *arguments, "--action-script", script],
        os.environ,
        setsigdef=[_SIGPIPE],
    )
    _relay(os.pidfd_open(pid), ask_read, answer_write, on_hook)
    _, status = os.waitpid(pid, 0)
    if status:
        _kill_children()
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def _relay(criu: int, ask: int, answer: int, on_hook: OnHook) -> None:
    """Answer hooks until CRIU has ended.

    Hooks come one at a time: each script waits for its answer.
    """
    watched = poll()
    watched.register(criu, POLLIN)
    watched.register(ask, POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in watched.poll()}
        if ask not in ready:
            return
        hook, _, pid = os.read(ask, 4096).decode().strip().partition(" ")
        os.write(answer, b"ok\n" if on_hook(hook, int(pid or 0)) else b"no\n")


def _kill_children() -> None:
    """End what a CRIU that was killed half-way through a restore has made.

    A container's first task is made as CRIU's sibling, so as a child of this process; other tasks
    become that when this process is a subreaper.
    """
    while children := _children():
        for child in children:
            os.kill(child, _SIGKILL)
        for child in children:
            os.waitpid(child, _WALL)


def _children() -> list[int]:
    with open("/proc/thread-self/children") as listed:
        return [int(pid) for pid in listed.read().split()]
