"""A process with a pid that another one had, which usually takes a day to come about."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

# clone3(2) with set_tid; the raw call, in a program that has nothing but this thread.
_PROGRAM = """
import ctypes, os, signal, sys
pid = ctypes.c_int(int(sys.argv[1]))
arguments = (ctypes.c_uint64 * 10)()
arguments[4], arguments[8], arguments[9] = signal.SIGCHLD, ctypes.addressof(pid), 1
libc = ctypes.PyDLL(None, use_errno=True)
made = libc.syscall(435, arguments, ctypes.sizeof(arguments))
if made == 0:
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    os.execvp("sleep", ["sleep", "1000"])
assert made == pid.value, os.strerror(ctypes.get_errno())
os.waitpid(made, 0)
"""


@contextmanager
def process_with(pid: int) -> Iterator[psutil.Process]:
    """One that sleeps, in a session of its own. The pid has to be free. Needs root."""
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(pid)], stdin=subprocess.DEVNULL
    ) as parent:
        while not psutil.pid_exists(pid) or psutil.Process(pid).name() != "sleep":
            assert parent.poll() is None
        made = psutil.Process(pid)
        try:
            yield made
            assert made.is_running()
        finally:
            with suppress(psutil.NoSuchProcess):
                made.kill()
