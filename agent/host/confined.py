"""Runs a program that can write into one directory and sees nothing else of the machine.

For programs that are fed what strangers wrote, which may have names that lead elsewhere: they leave
the directory by a link, an absolute name or `..`, and find a root with nothing in it but
programs and libraries, all of it read-only. Whatever they would not check, the kernel does.

The agent itself must not fork, and starts this as a program of its own: standard library only.
"""

from __future__ import annotations

import ctypes
import os
import sys

from agent.host import mounting

# Type checkers know the name; typing itself would take 5 ms to import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

# Where the directory is for the program.
INSIDE = "/directory"

# Of a confinement that could not be made; no program that is run this way ends with it.
FAILED = 125

# Who has to clean up after a killed agent comes in its moment, and would find the program at work:
# what it was fed is in its pipe still, up to 1 MiB.
_PR_SET_PDEATHSIG, _SIGKILL = 1, 9

# What programs consist of, here or there.
_SYSTEM = ("/usr", "/bin", "/lib", "/lib32", "/lib64", "/nix")

_READ_ONLY = mounting.RDONLY | mounting.NODEV | mounting.NOSUID


_START = "import sys; sys.path.insert(0, {!r}); from agent.host.confined import main; main()"


def command(directory: str, program: str, *arguments: str) -> list[str]:
    """What to start, with the program's absolute path. It finds the directory at ``INSIDE``, and is
    killed when the thread that has started it ends.
    """
    text = _START.format(os.path.abspath(__file__).rpartition("/agent/host/")[0])
    return [sys.executable, "-I", "-S", "-c", text, directory, program, *arguments]


def main() -> NoReturn:
    """Confine this process to what its arguments say, and become the program."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    directory, program, *arguments = sys.argv[1:]
    program = os.path.realpath(program)
    try:
        _confine(os.fsencode(directory), os.fsencode(program))
        os.execv(program, [program, *arguments])  # noqa: S606 - this is what the process is for
    except OSError as error:
        os.write(2, f"cannot confine {program} to {directory}: {error}\n".encode())
        os._exit(FAILED)


def _confine(directory: bytes, program: bytes) -> None:
    mounting.unshare(mounting.CLONE_NEWNS)
    mounting.mount(b"none", b"/", b"", mounting.REC | mounting.PRIVATE)
    needed = [os.fsencode(path) for path in _SYSTEM if os.path.isdir(path)]
    if not any(program.startswith(path + b"/") for path in needed):
        # Of a bundle (deploy/host-bundle.sh) all is needed: its programs start with its own loader.
        bundle = os.fsencode(sys.prefix)
        needed.append(bundle if program.startswith(bundle + b"/") else os.path.dirname(program))
    # Found by descriptor: the new root is about to cover it, and perhaps some of the others.
    opened = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in needed}
    target = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    mounting.mount(b"tmpfs", directory, b"tmpfs", 0, b"mode=755,size=1m")
    for path, descriptor in opened.items():
        _show(descriptor, directory + path, _READ_ONLY)
    # Devices can be made in it, and not be used.
    _show(target, directory + INSIDE.encode(), mounting.NODEV | mounting.NOSUID)
    mounting.mount(b"none", directory, b"", mounting.REMOUNT | mounting.BIND | _READ_ONLY)
    mounting.enter(directory)


def _show(descriptor: int, at: bytes, flags: int) -> None:
    """Mount what a descriptor means, without what is mounted below it."""
    os.makedirs(at)
    mounting.mount(b"/proc/self/fd/%d" % descriptor, at, b"", mounting.BIND)
    mounting.mount(b"none", at, b"", mounting.REMOUNT | mounting.BIND | flags)
