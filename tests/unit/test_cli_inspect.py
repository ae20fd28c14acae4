"""The process tree as ``inspect`` shows it, damaged ones included."""

from __future__ import annotations

import io
from collections.abc import Iterable

import pytest

from agent.cli.inspect_tables import inspection
from agent.cli.output import console
from agent.inspect import ImageSize, Inspection, MemberInspection
from agent.inspect.processes import Process

HOST = {"name": "node", "kernel": "6.12", "architecture": "x86_64", "criu": "4.1.1", "runc": None}


def process(pid: int, ppid: int, name: str = "sh") -> Process:
    return Process(
        pid=pid,
        ppid=ppid,
        name=name,
        executable=f"/bin/{name}",
        state="running",
        threads=2,
        memory_mapped=20 << 20,
        memory_saved=1 << 20,
        open_files={"reg": 2, "pipe": 1},
    )


GPUS = [
    {"uuid": f"GPU-{number}", "model": "NVIDIA H100", "memory_bytes": 80 << 30, "used": number < 2}
    for number in range(3)
]


def shown(processes: Iterable[Process]) -> list[str]:
    member = MemberInspection(
        name="web",
        kind="runc",
        target="web",
        pid=4711,
        bundle="/bundles/web",
        runc_root="/run/runc",
        terminal=False,
        options={"tcp_established": True, "shell_job": False, "manage_cgroups_mode": "soft"},
        processes=list(processes),
        shared_memory=0,
        images=[ImageSize("core-1.img", "criu", 5), ImageSize("pages-1.img", "criu", 4096)],
        criu_stats={"frozen_time": 204_100, "memdump_time": 1_500_000, "pages_written": 7},
    )
    found = Inspection(
        checkpoint_id="c",
        path="file:///store/c",
        name=None,
        kind="simple",
        pod=None,
        created_at="2026-01-02T03:04:05Z",
        agent_version="0.1.0",
        host=HOST,
        codec="zstd:1",
        streams=1,
        chunks=2,
        bytes_raw=4101,
        bytes_stored=2000,
        streamed=True,
        fallback_reason=None,
        frozen_seconds=0.2,
        phases={"dump": 0.5},
        gpus={"driver": "580.65.06", "devices": GPUS, "members": ["web"]},
        members=[member],
        volumes=[],
    )
    stream = io.StringIO()
    console(stream).print(inspection(found))
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def test_facts() -> None:
    lines = shown([process(1, 0)])
    assert "by      checkpoint-agent 0.1.0, CRIU 4.1.1" in lines
    assert "container web, pid 4711" in lines
    assert "GPUs    2 x NVIDIA H100 by web, driver 580.65.06" in lines
    assert "options    tcp_established, cgroups soft" in lines
    assert "images     2 images, the largest pages-1.img 4.00 KiB" in lines
    assert "criu       frozen 204 ms, memdump 1.50 s" in lines
    assert lines[-1].split() == ["sh", "1", "running", "2", "1.00", "MiB", "20.0", "MiB", "3"]


@pytest.mark.parametrize(
    ("processes", "names"),
    [
        ([(1, 0), (2, 1), (3, 1), (4, 2)], ["p1", "  p2", "    p4", "  p3"]),
        ([(5, 0), (6, 0), (7, 5)], ["p5", "  p7", "p6"]),
        ([(2, 3), (3, 2)], ["p2", "  p3"]),
        ([(2, 2)], ["p2"]),
        ([(1, 0), (1, 0)], ["p1"]),
        ([], []),
    ],
    ids=["tree", "two roots", "a ring", "its own parent", "twice", "none"],
)
def test_tree(processes: list[tuple[int, int]], names: list[str]) -> None:
    lines = shown(process(pid, ppid, f"p{pid}") for pid, ppid in processes)
    start = next(at for at, line in enumerate(lines) if line.startswith("PROCESS")) + 1
    rows = [line for line in lines[start:] if line]
    assert [row[: row.index(row.split()[0]) + len(row.split()[0])] for row in rows] == names


def test_deep_tree_fits_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    chain = [process(pid, pid - 1, "fifteen-letters") for pid in range(1, 2001)]
    lines = shown(chain)
    assert sum("fifteen-letters" in line for line in lines) == 2000
    assert max(map(len, lines)) <= 80


def test_names_cannot_drive_the_terminal() -> None:
    assert not any("\x1b" in line for line in shown([process(1, 0, "\x1b[2J")]))
