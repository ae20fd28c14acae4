"""How much a process may still take within the limits it lives under."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.host import memory

pytestmark = pytest.mark.root

_MIB = 1 << 20

# Into the cgroup first: who touches a page is who pays.
_READER = """
import os, sys
with open(sys.argv[1], "w") as procs:
    procs.write(str(os.getpid()))
with open(sys.argv[2], "wb") as file:
    for _ in range(100):
        file.write(os.urandom(1 << 20))
    file.flush()
    os.fsync(file.fileno())
held = bytearray(50 << 20)
print(flush=True)
input()
"""


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """One that may have 200 MiB, in whichever version this machine has."""
    for root, limit in (
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
        (Path("/sys/fs/cgroup"), "memory.max"),
    ):
        made = root / f"checkpoint-agent-{uuid.uuid4().hex}"
        if not root.is_dir():
            continue
        made.mkdir()
        if (made / limit).exists():
            (made / limit).write_text(str(200 * _MIB))
            yield made
            made.rmdir()
            return
        made.rmdir()
    pytest.skip("no cgroup of this machine limits memory")


def test_files_that_were_read_go_when_the_room_is_needed(cgroup: Path, tmp_path: Path) -> None:
    paths = [str(cgroup / "cgroup.procs"), str(tmp_path / "file")]
    words = [sys.executable, "-IS", "-c", _READER, *paths]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        left = memory.available(process.pid)
        process.kill()
    assert 100 * _MIB < left < 150 * _MIB


def test_a_cgroup_of_any_name(cgroup: Path) -> None:
    """A container that may make some gives them names, and they need not be text."""
    inner = cgroup / os.fsdecode(b"v\x0bt:\xff")
    inner.mkdir()
    try:
        with subprocess.Popen(["sleep", "1000"]) as process:
            try:
                (inner / "cgroup.procs").write_text(str(process.pid))
                assert 0 < memory.available(process.pid) <= 200 * _MIB
            finally:
                process.kill()
    finally:
        inner.rmdir()
