"""Compiles the workloads: small static C programs that are made to be checkpointed."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCES = Path(__file__).resolve().parent / "workloads"
CACHE = SOURCES.parent.parent / ".cache" / "workloads"

# Static: the root filesystem of a bundle then needs nothing but busybox and the program.
FLAGS = ("-static", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread")


class CompileFailed(Exception):
    """A workload could not be built; the text is the compiler's own."""


def program(name: str) -> Path:
    """The compiled workload ``name``; compiled now if its sources have changed since the last time.

    Raises:
        CompileFailed: there is no compiler, or it refused.
    """
    source, header = SOURCES / f"{name}.c", SOURCES / "report.h"
    key = hashlib.sha256(b"\0".join([*map(str.encode, FLAGS), header.read_bytes(),
                                     source.read_bytes()])).hexdigest()[:16]  # fmt: skip
    binary = CACHE / f"{name}-{key}"
    if not binary.exists():
        _compile(source, binary)
    return binary


def _compile(source: Path, binary: Path) -> None:
    """Compile beside the target and rename: two test workers may build the same one at once."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise CompileFailed("no C compiler: install gcc and libc6-dev")
    binary.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=binary.parent, prefix=binary.name)
    os.close(handle)
    try:
        done = subprocess.run(
            [compiler, *FLAGS, "-o", temporary, source], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise CompileFailed(done.stderr)
        Path(temporary).chmod(0o755)
        Path(temporary).replace(binary)
    finally:
        Path(temporary).unlink(missing_ok=True)
