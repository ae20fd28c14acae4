"""Whether there is room for a heartbeat, told from files as kernels write them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.heartbeat.pressure import scarce
from agent.settings import Heartbeat

NODE = Heartbeat(store_free=0.0)
FAR = "s3://bucket/prefix"


def psi(proc: Path, **pressure: str) -> None:
    (proc / "pressure").mkdir(exist_ok=True)
    for name in ("cpu", "memory", "io"):
        line = f"some avg10={pressure.get(name, '0.00')} avg60=99.99 avg300=99.99 total=1\n"
        (proc / "pressure" / name).write_text(line + line.replace("some", "full"))


def plain(proc: Path, *, load: float = 0.0, available: int = 90) -> None:
    (proc / "loadavg").write_text(f"{load * (os.cpu_count() or 1)} 99.00 99.00 3/456 7890\n")
    (proc / "meminfo").write_text(
        f"MemTotal:       100000 kB\nMemFree:  1 kB\nMemAvailable:   {available * 1000} kB\n"
        "HugePages_Total:       0\n"
    )


@pytest.mark.parametrize(
    ("pressure", "found"),
    [
        ({}, None),
        ({"cpu": "90.00", "memory": "20.00", "io": "60.00"}, None),
        ({"cpu": "90.01"}, "cpu"),
        ({"memory": "20.01"}, "memory"),
        ({"io": "100.00"}, "io"),
        ({"cpu": "99.00", "memory": "99.00"}, "memory"),
    ],
)
def test_stalls_of_the_last_ten_seconds(
    tmp_path: Path, pressure: dict[str, str], found: str | None
) -> None:
    psi(tmp_path, **pressure)
    # Does not count where the kernel tells of stalls.
    plain(tmp_path, load=99.0, available=0)
    assert scarce(NODE, FAR, tmp_path) == found


@pytest.mark.parametrize(
    ("load", "available", "found"),
    [(0.5, 90, None), (4.1, 90, "cpu"), (0.5, 4, "memory"), (9.0, 4, "memory")],
)
def test_without_psi(tmp_path: Path, load: float, available: int, found: str | None) -> None:
    plain(tmp_path, load=load, available=available)
    assert scarce(NODE, FAR, tmp_path) == found


def test_a_machine_that_tells_nothing_or_nonsense_has_room(tmp_path: Path) -> None:
    assert scarce(NODE, FAR, tmp_path) is None
    psi(tmp_path, cpu="lots", memory="", io="1e9")
    (tmp_path / "meminfo").write_text("MemTotal: 0 kB\nMemAvailable: 0 kB\n")
    (tmp_path / "loadavg").write_text("\n")
    assert scarce(NODE, FAR, tmp_path) is None


def test_the_machine_itself_can_be_asked() -> None:
    calm = Heartbeat(
        store_free=0.0, memory_pressure=100.0, io_pressure=100.0, cpu_pressure=100.0,
        memory_available=0.0, load_per_core=1000.0,
    )  # fmt: skip
    assert scarce(calm, FAR, Path("/proc")) is None


def test_space_of_a_store_that_is_a_directory(tmp_path: Path) -> None:
    store = f"file://{tmp_path}/not/there/yet%20"
    facts = os.statvfs(tmp_path)
    free = 100 * facts.f_bavail / facts.f_blocks
    psi(tmp_path)
    for percent, found in ((0.0, None), (max(0.0, free - 1), None), (100.0, "space")):
        assert scarce(NODE.model_copy(update={"store_free": percent}), store, tmp_path) == found
    assert scarce(NODE.model_copy(update={"store_free": 100.0}), FAR, tmp_path) is None
