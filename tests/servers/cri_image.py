"""A container image of busybox and the workloads, as `docker save` would write it."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import shutil
import tarfile
from pathlib import Path

from bench.bundle import APPLETS, FOLDERS
from bench.programs import SOURCES, program

IMAGE = "localhost/checkpoint-agent/workloads:test"
PAUSE_IMAGE = "localhost/checkpoint-agent/pause:test"

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def write_images(path: Path) -> None:
    """An archive of both images to ``path``: one layer, two commands."""
    layer = _layer()
    entries = {"layer.tar": layer}
    manifest = []
    for name, command in ((IMAGE, ["/bin/sh"]), (PAUSE_IMAGE, ["/bin/sleep", "2147483647"])):
        config = _config(command, layer)
        config_name = f"{hashlib.sha256(config).hexdigest()}.json"
        entries[config_name] = config
        manifest.append({"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]})
    entries["manifest.json"] = json.dumps(manifest).encode()
    with tarfile.open(path, "w") as archive:
        for name, data in entries.items():
            _add(archive, name, data)


def _config(command: list[str], layer: bytes) -> bytes:
    machine = platform.machine()
    config = {
        "architecture": _ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "config": {"Entrypoint": command, "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    return json.dumps(config).encode()


def _layer() -> bytes:
    busybox = shutil.which("busybox")
    if busybox is None:
        raise RuntimeError("no busybox; `make setup` installs busybox-static")
    programs = {"busybox": Path(busybox)}
    programs |= {source.stem: program(source.stem) for source in SOURCES.glob("*.c")}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        for folder in (*FOLDERS, "etc"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            layer.addfile(entry)
        for name, source in programs.items():
            _add(layer, f"bin/{name}", source.read_bytes())
        for applet in (*APPLETS, "mkdir", "rm", "dd", "chown"):
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            layer.addfile(entry)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o755
    archive.addfile(entry, io.BytesIO(data))
