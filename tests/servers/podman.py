"""Podman with everything of its own below one directory: nothing of the machine's is touched."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.leftovers import cgroup_paths, unmount_below

# Where root's Podman remembers blobs, wherever the rest of it is.
_CACHE = Path("/var/lib/containers/cache")

_BUNDLED = Path(__file__).parents[2] / ".tools" / "podman"

# A container may have no higher limits than this process, which need not be allowed much. Podman
# would ask for a million open files.
_CONTAINERS = """[containers]
log_driver = "k8s-file"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
"""
_STORAGE = """[storage]
driver = "vfs"
runroot = "{home}/runroot"
graphroot = "{home}/root"
"""


def podman_program() -> str | None:
    """Podman: the one that was fetched for tests, or the system's; None where there is none."""
    return shutil.which(_BUNDLED / "bin" / "podman") or shutil.which("podman")


@dataclass(frozen=True, slots=True)
class Podman:
    """One Podman with its images and containers."""

    program: str
    home: Path
    criu: Path

    def __call__(self, *words: object, check: bool = True) -> str:
        """Run a command; what it says on standard output."""
        options = ["--root", self.home / "root", "--runroot", self.home / "runroot"]
        options += ["--tmpdir", self.home / "tmp", "--storage-driver", "vfs"]
        options += ["--cgroup-manager", "cgroupfs", "--runtime", "runc"]
        command = [self.program, *map(str, options), *map(str, words)]
        done = subprocess.run(
            command,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def make_image(self, name: str, root: Path) -> None:
        """An image of what is in a directory."""
        packed = self.home / "image.tar"
        subprocess.run(["tar", "-C", root, "-cf", packed, "."], check=True)
        self("import", packed, name)

    def mounted(self, container: str) -> Path:
        """Where the root filesystem of a container is."""
        return Path(self("mount", container))

    def _environment(self) -> dict[str, str]:
        path = [self.criu.parent, _BUNDLED / "bin", *os.environ["PATH"].split(os.pathsep)]
        configured = {
            "CONTAINERS_CONF": "containers.conf",
            "CONTAINERS_STORAGE_CONF": "storage.conf",
            "CONTAINERS_REGISTRIES_CONF": "registries.conf",
            "HOME": "",
            "TMPDIR": "",
        }
        own = {name: str(self.home / file) for name, file in configured.items()}
        return {"PATH": os.pathsep.join(map(str, path)), **own}


@contextmanager
def podman_in(home: Path, program: str, criu: Path) -> Iterator[Podman]:
    """A Podman in the new directory ``home``; its containers and mounts are gone at the end."""
    had_cache = _CACHE.exists()
    policy = home / ".config" / "containers"
    policy.mkdir(parents=True)
    (policy / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    (home / "containers.conf").write_text(_CONTAINERS)
    (home / "storage.conf").write_text(_STORAGE.format(home=home))
    (home / "registries.conf").write_text("")
    made = Podman(program, home, criu)
    try:
        yield made
    finally:
        made("rm", "--all", "--force", "--time", "0", check=False)
        unmount_below(home)
        if not had_cache:
            shutil.rmtree(_CACHE, ignore_errors=True)
            with contextlib.suppress(OSError):  # somebody else's
                _CACHE.parent.rmdir()
        _remove_empty_cgroups()


def _remove_empty_cgroups() -> None:
    """The one that Podman puts its containers' in, as far as nobody else's are there."""
    for cgroup in cgroup_paths("libpod_parent"):
        for below in (*cgroup.glob("libpod-*"), cgroup / "conmon", cgroup):
            try:
                below.rmdir()
            except OSError:
                continue  # another Podman's
