"""Takes away what a containerd leaves when it was killed, or could not remove a pod itself."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from bench.leftovers import cgroup_paths, unmount_below
from bench.reports import wait_until

_RESULTS = Path("/var/lib/cni/results")


def clear(directory: Path, name: str) -> None:
    """Remove shims, containers, mounts, networks and cgroups of the server in ``directory``."""
    _kill_shims(directory)
    for root in directory.glob("runc/*"):
        for container in root.iterdir():
            subprocess.run(["runc", "--root", root, "delete", "--force", container.name],
                           stdin=subprocess.DEVNULL, capture_output=True, check=False)  # fmt: skip
    for path in cgroup_paths(name):
        wait_until(lambda path=path: _remove_cgroups(path), f"{path} empty")  # type: ignore[misc]
    _remove_networks(name)
    unmount_below(directory)


def _kill_shims(directory: Path) -> None:
    """A shim outlives its containerd; it is known by the socket in its command line."""
    sockets = shim_sockets(directory)
    for pid in shims(directory):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not shims(directory), "shims ending")
    for path in sockets:
        path.unlink(missing_ok=True)


def shim_sockets(directory: Path) -> set[Path]:
    """Where the shims listen: not below the state directory, but in /run/containerd/s."""
    tasks = directory / "state" / "io.containerd.runtime.v2.task"
    # containerd 2 has the address in a JSON object, older ones bare.
    files = [*tasks.glob("*/*/address"), *tasks.glob("*/*/bootstrap.json")]
    found = (re.findall(r"unix://(/[^\s\"]+)", path.read_text()) for path in files)
    return {Path(path) for paths in found for path in paths}


def shims(directory: Path) -> list[int]:
    """The shims of the server in ``directory``."""
    address = os.fsencode(directory / "containerd.sock")
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(FileNotFoundError, ProcessLookupError):
            words = entry.read_bytes().split(b"\0")
            if address in words and b"containerd-shim" in words[0]:
                found.append(int(entry.parent.name))
    return found


def networks(name: str) -> set[Path]:
    """The network namespaces of the pods of the server of that name, by what CNI wrote down."""
    results = [json.loads(path.read_text())["result"] for path in _RESULTS.glob(f"{name}-*")]
    interfaces = (interface for result in results for interface in result["interfaces"])
    return {Path(each["sandbox"]) for each in interfaces if each.get("sandbox")}


def _remove_networks(name: str) -> None:
    """The bridge, the namespaces of pods, and what CNI wrote down of them."""
    for namespace in networks(name):
        subprocess.run(["umount", namespace], capture_output=True, check=False)
        namespace.unlink(missing_ok=True)
    for result in _RESULTS.glob(f"{name}-*"):
        sandbox_id = result.name.removeprefix(f"{name}-").partition("-")[0]
        for each in _RESULTS.glob(f"*-{sandbox_id}-*"):
            each.unlink()
    subprocess.run(["ip", "link", "delete", name], capture_output=True, check=False)


def _remove_cgroups(path: Path) -> bool:
    """Whether a tree of cgroups is gone; one whose last process just ended is not at once."""
    for folder, _, _ in os.walk(path, topdown=False):
        with suppress(OSError):
            Path(folder).rmdir()
    return not path.exists()
