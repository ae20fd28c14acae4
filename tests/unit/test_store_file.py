"""A store in a directory where even giving up fails, as on a file server that has gone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.errors import StoreFailed
from agent.store.file import FileStore


@pytest.mark.parametrize("o_tmpfile", [os.O_TMPFILE, os.O_DIRECTORY], ids=["nameless", "named"])
def test_giving_up_never_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, o_tmpfile: int
) -> None:
    monkeypatch.setattr(os, "O_TMPFILE", o_tmpfile)
    before = set(os.listdir("/proc/self/fd"))
    writer = FileStore(tmp_path / "store").create("c1/stream-000")
    # Of a file that is gone closing fails, and so does everything before it.
    for descriptor in set(os.listdir("/proc/self/fd")) - before:
        if not os.path.isdir(f"/proc/self/fd/{descriptor}"):
            os.close(int(descriptor))
    with pytest.raises(StoreFailed):
        writer.write(b"x")
    writer.abort()
    writer.abort()
    assert [path.name for path in (tmp_path / "store").rglob("*")] == []
    assert len(os.listdir("/proc/self/fd")) == len(before)
