"""The relocatable bundle of deploy/host-bundle.sh, and machines that have nothing but it.

`make setup-test` has built everything but the agent, which is added here: it takes a second.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from bench.leftovers import unmount_below
from tests.cli_process import PATIENCE, ROOT

RUNTIME = ROOT / ".tools" / "host-bundle"

# What a machine has that has nothing. Its shell is busybox's.
_FOLDERS = ("bin", "dev", "etc", "proc", "run", "sys", "tmp", "usr/sbin", "var/lib")

# A root file system of its own, as a machine has it: CRIU looks at mounts, and a chroot has those
# of the machine around it.
_ENTER = """
set -eu
root=$1 shared=$2
shift 2
mount --make-rprivate /
mount --rbind "$root" "$root"
for each in /dev /proc /sys "$shared"; do
    mkdir -p "$root$each"
    mount --rbind "$each" "$root$each"
done
mount -t tmpfs tmpfs "$root/run"
mkdir "$root/run/old"
cd "$root"
pivot_root . run/old
cd /
exec /bin/sh -c 'umount -l /run/old && exec "$@"' sh "$@"
"""


def host_bundle(path: Path) -> Path:
    """A bundle with the agent of this checkout at ``path``, which is returned.

    Raises:
        RuntimeError: the runtime is not there, or the agent cannot be added.
    """
    if not RUNTIME.exists():
        raise RuntimeError(f"no {RUNTIME}; `make setup-test` builds it")
    # Links: it has 9,000 files. What gets the agent's is made anew.
    if subprocess.run(["cp", "-al", RUNTIME, path], capture_output=True, check=False).returncode:
        shutil.rmtree(path, ignore_errors=True)
        subprocess.run(["cp", "-a", RUNTIME, path], check=True)
    done = subprocess.run(
        [ROOT / "deploy" / "host-bundle.sh", "agent", path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(done.stdout + done.stderr)
    return path


@contextmanager
def in_memory(prefix: str) -> Iterator[Path]:
    """A directory for bundles to be copied to and fro: on a disk that takes minutes."""
    with TemporaryDirectory(prefix=prefix) as name:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2g", "tmpfs", name], check=True)
        try:
            yield Path(name)
        finally:
            unmount_below(Path(name))
            subprocess.run(["umount", "--lazy", name], check=True)


class BareMachine:
    """A root file system with busybox, runc, and nothing else; programs run as if booted there."""

    def __init__(self, root: Path) -> None:
        """Make it at ``root``. It shares the directory for temporary files with this machine."""
        self.root = root
        for folder in _FOLDERS:
            (root / folder).mkdir(parents=True, exist_ok=True)
        _take(root, Path(_which("busybox")), "bin/busybox")
        for applet in ("sh", "cat", "ls", "readlink", "umount", "true"):
            (root / "bin" / applet).symlink_to("busybox")
        _take(root, Path(_which("runc")), "usr/sbin/runc")

    def command(self, *words: str) -> list[str]:
        """What runs a program there."""
        return [
            "unshare",
            "--mount",
            "sh",
            "-c",
            _ENTER,
            "sh",
            str(self.root),
            gettempdir(),
            *words,
        ]

    def run(
        self, words: Sequence[str], env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program there to its end."""
        return subprocess.run(
            self.command(*words),
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env={"PATH": os.environ["PATH"], **(env or {})},
        )


def _which(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise RuntimeError(f"no {program}; `make setup` installs it")
    return found


def _take(root: Path, program: Path, name: str) -> None:
    """Copy a program with the libraries it needs, each to where it looks for them."""
    shutil.copy(program, root / name)
    needed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    for word in needed.split():
        if word.startswith("/"):
            target = root / word[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(word, target)
