"""Containers as NVIDIA's container runtime lays them out, with files that stand for its driver.

Its two ways: edits of the container's configuration after the Container Device Interface (mounts,
device nodes, a hook that brings links up to date), and `nvidia-container-cli configure`, which a
hook runs at the container's start and which mounts all of that behind the back of runc.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.bundle import Bundle

LIBRARIES = "/usr/lib/x86_64-linux-gnu"
NODES = ("nvidia0", "nvidiactl", "nvidia-uvm")

# Of nodes that harm nobody when somebody opens them: /dev/null's and /dev/zero's.
NULL, ZERO = (1, 3), (1, 5)

_HOOK = """#!/bin/sh
# As `nvidia-container-cli configure`: what the container gets is mounted in its own namespace.
state=$(cat)
pid=$(echo "$state" | sed 's/.*"pid": *\\([0-9]*\\).*/\\1/')
ROOT=$(echo "$state" | sed 's/.*"bundle": *"\\([^"]*\\)".*/\\1/')/rootfs
export ROOT
exec nsenter --mount=/proc/$pid/ns/mnt /bin/sh -ec '
put() { # SOURCE TARGET OPTIONS
    mkdir -p ${2%/*}
    : >>$2
    mount -n --bind $1 $2
    mount -n -o remount,bind,$3 none $2
}
for file in DRIVER/LIBRARIES/*; do put $file $ROOT/LIBRARIES/${file##*/} ro,nosuid,nodev; done
put DRIVER/usr/bin/nvidia-smi $ROOT/usr/bin/nvidia-smi ro,nosuid,nodev
for node in NODES; do put DRIVER/dev/$node $ROOT/dev/$node nosuid,noexec; done
mkdir -p $ROOT/run/nvidia
mount -n -t tmpfs -o nosuid,nodev,noexec,mode=555 tmpfs $ROOT/run/nvidia
echo "ModifyDeviceFiles: 0" >$ROOT/run/nvidia/params
'
"""


@dataclass(frozen=True, slots=True)
class Driver:
    """Files of a driver of some version below a directory."""

    directory: Path
    version: str

    @property
    def libraries(self) -> list[Path]:
        """Those that a container gets."""
        return sorted((self.directory / LIBRARIES[1:]).iterdir())

    def content(self, name: str) -> bytes:
        """Of the library of that name, ``libcuda``."""
        return (self.directory / LIBRARIES[1:] / f"{name}.so.{self.version}").read_bytes()


def install_driver(
    directory: Path, version: str, *, number: tuple[int, int] = NULL, content: str | None = None
) -> Driver:
    """Make one, in which all nodes are a device of that number."""
    libraries = directory / LIBRARIES[1:]
    for place in (libraries, directory / "usr/bin", directory / "dev"):
        place.mkdir(parents=True, exist_ok=True)
    for name in ("libcuda", "libnvidia-ml"):
        (libraries / f"{name}.so.{version}").write_text(content or f"{name} of {version}\n")
    (directory / "usr/bin/nvidia-smi").write_text(f"nvidia-smi of {version}\n")
    for node in NODES:
        path = directory / "dev" / node
        path.unlink(missing_ok=True)
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(*number))
    return Driver(directory, version)


@contextmanager
def shared(directory: Path) -> Iterator[None]:
    """A directory as a mount that is shared, as all of a machine's are under systemd."""
    subprocess.run(["mount", "--bind", directory, directory], check=True)
    try:
        subprocess.run(["mount", "--make-shared", directory], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


def edit_as_cdi(bundle: Bundle, driver: Driver, *, number: tuple[int, int] = NULL) -> None:
    """The configuration as an engine leaves it after the edits of a CDI specification."""
    files = {f"{LIBRARIES}/{path.name}": path for path in driver.libraries}
    files["/usr/bin/nvidia-smi"] = driver.directory / "usr/bin/nvidia-smi"
    options = ["ro", "nosuid", "nodev", "rbind", "rprivate"]
    hook = bundle.path / "nvidia-cdi-hook"
    hook.write_text("#!/bin/sh\ncat >/dev/null\n")
    hook.chmod(0o755)
    with _configuration(bundle) as config:
        config["mounts"] += [
            {"destination": target, "source": str(source), "type": "bind", "options": options}
            for target, source in files.items()
        ]
        config["linux"].setdefault("devices", []).extend(
            {"path": f"/dev/{node}", "type": "c", "major": number[0], "minor": number[1],
             "fileMode": 0o666, "uid": 0, "gid": 0}
            for node in NODES
        )  # fmt: skip
        arguments = ["nvidia-cdi-hook", "update-ldcache", "--folder", LIBRARIES]
        config["hooks"] = {"createContainer": [{"path": str(hook), "args": arguments}]}


def add_hook(bundle: Bundle, driver: Driver) -> None:
    """The configuration of the older way: a hook, and nothing else."""
    hook = _write_hook(bundle.path, driver)
    with _configuration(bundle) as config:
        config["hooks"] = _hooks(hook)


def nvidia_runtime(directory: Path, driver: Driver, runtime: Path) -> Path:
    """A program that stands for `nvidia-container-runtime`: it adds the hook and execs ``runtime``.

    Sandboxes have no GPU, and get none.
    """
    hooks = json.dumps(_hooks(_write_hook(directory, driver)))
    made = directory / "nvidia-container-runtime"
    made.write_text(
        f"""#!{sys.executable} -IS
import json, os, sys
if "create" in sys.argv:
    path = sys.argv[sys.argv.index("--bundle") + 1] + "/config.json"
    with open(path) as file:
        config = json.load(file)
    if config["annotations"].get("io.kubernetes.cri.container-type") == "container":
        config["hooks"] = json.loads({hooks!r})
        with open(path, "w") as file:
            json.dump(config, file)
os.execv({str(runtime)!r}, sys.argv)
"""
    )
    made.chmod(0o755)
    return made


def _hooks(hook: Path) -> dict[str, Any]:
    return {"prestart": [{"path": str(hook), "args": [hook.name, "prestart"]}]}


def _write_hook(directory: Path, driver: Driver) -> Path:
    hook = directory / "nvidia-container-runtime-hook"
    text = _HOOK
    values = {"DRIVER": driver.directory, "LIBRARIES": LIBRARIES[1:], "NODES": " ".join(NODES)}
    for name, value in values.items():
        text = text.replace(name, str(value))
    hook.write_text(text)
    hook.chmod(0o755)
    return hook


@contextmanager
def _configuration(bundle: Bundle) -> Iterator[dict[str, Any]]:
    path = bundle.path / "config.json"
    config = json.loads(path.read_text())
    yield config
    path.write_text(json.dumps(config))
