"""Process trees that know what their memory should hold, dumped and restored by the real CRIU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.config import find_tools
from tests.waiting import PATIENCE, eventually

# Asked with SIGUSR1, every process of the tree writes the digest of its memory, by its pid.
PROGRAM = """
import hashlib, os, random, signal, sys
directory, mebibytes, children = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.umask(0o077)
for child in range(children):
    if os.fork() == 0:
        break
else:
    child = children
block = random.Random(child).randbytes(1 << 20)
memory = [bytearray(block[at:] + block[:at] + bytes(4096)) for at in range(mebibytes)]
def tell(*_):
    digest = hashlib.sha256(b"".join(memory)).hexdigest()
    path = f"{directory}/{os.getpid()}"
    with open(path + ".new", "w") as file:
        file.write(digest)
    os.rename(path + ".new", path)
signal.signal(signal.SIGUSR1, tell)
tell()
while True:
    signal.pause()
"""


class Tree:
    """A process, possibly with children, that can be dumped, restored and asked for its memory."""

    def __init__(self, directory: Path, *, mebibytes: int = 16, children: int = 0) -> None:
        self.directory = directory
        self.directory.mkdir()
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", PROGRAM, directory, str(mebibytes), str(children)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.pid = self._process.pid
        try:
            eventually(lambda: len(self._told()) == children + 1)
        except BaseException:
            # All of its session: those who have told nothing yet are in it too.
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
            raise
        self.digests = self._told()

    def dump(self, images: Path) -> None:
        """Dump the tree, which ends, into an ordinary directory of images."""
        images.mkdir()
        status = criu("dump", "-t", str(self.pid), "-D", images, "--shell-job", "-o", "dump.log")
        log = images / "dump.log"
        assert status == 0, log.read_text()
        log.unlink()
        self._process.wait()
        # Orphans that nobody has reaped yet keep the first one's pid as their session's.
        eventually(lambda: not self.is_alive())

    def images(self, directory: Path) -> dict[str, bytes]:
        """Dump the tree and read all its images."""
        self.dump(directory)
        return {path.name: path.read_bytes() for path in directory.iterdir()}

    def memory(self) -> dict[str, str]:
        """What every process of the tree says about its memory now."""
        for name in self.digests:
            (self.directory / name).unlink()
        for name in self.digests:
            os.kill(int(name), signal.SIGUSR1)
        eventually(lambda: len(self._told()) == len(self.digests))
        return self._told()

    def is_alive(self) -> bool:
        """Whether any process of the tree exists."""
        return any(Path(f"/proc/{name}").exists() for name in self.digests)

    def end(self) -> None:
        """Kill every process of the tree and wait until it is gone."""
        for name in [str(self.pid), *self._told()]:
            with suppress(ProcessLookupError):
                os.kill(int(name), signal.SIGKILL)
        self._process.wait()
        eventually(lambda: not self.is_alive())

    def _told(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.directory.iterdir() if not path.suffix}


@contextmanager
def tree(directory: Path, *, mebibytes: int = 16, children: int = 0) -> Iterator[Tree]:
    """A running tree that does not outlive the block."""
    running = Tree(directory, mebibytes=mebibytes, children=children)
    try:
        yield running
    finally:
        running.end()


def criu(*arguments: str | Path) -> int:
    """Run CRIU to its end; its exit status."""
    return subprocess.run([find_tools().criu, *arguments], check=False, timeout=PATIENCE).returncode


def restore(images: Path, *options: str) -> int:
    """Restore a directory of images, detached; CRIU's exit status. Its log is restore.log."""
    return criu("restore", "-D", images, "-d", "--shell-job", "-o", "restore.log", *options)
