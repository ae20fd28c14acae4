"""The doctor on rights, the kernel, file systems and devices: read from real files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.doctor.machine import (
    cgroup_finding,
    gpu_finding,
    kernel_finding,
    pipe_finding,
    run_directory_finding,
    state_directory_finding,
)
from agent.doctor.rights import NEEDED, WANTED, capability_finding

# --- capabilities ---


def status_file(path: Path, bits: set[int]) -> Path:
    path.write_text(f"Name:\tx\nCapEff:\t{sum(1 << bit for bit in bits):016x}\nCapBnd:\t0\n")
    return path


def test_every_missing_capability_is_named(tmp_path: Path) -> None:
    finding = capability_finding(status_file(tmp_path / "status", set()))

    assert finding.status == "fail"
    for _, name, _ in NEEDED:
        assert name in finding.detail


@pytest.mark.parametrize(("bit", "name"), [(bit, name) for bit, name, _ in NEEDED])
def test_one_missing_capability_is_the_only_one_named(tmp_path: Path, bit: int, name: str) -> None:
    held = {number for number, _, _ in NEEDED} - {bit}

    finding = capability_finding(status_file(tmp_path / "status", held))

    assert finding.status == "fail"
    assert [word for word in finding.detail.split() if word.startswith("CAP_")] == [name]


def test_cap_sys_resource_is_only_wanted(tmp_path: Path) -> None:
    needed = {bit for bit, _, _ in NEEDED}

    without = capability_finding(status_file(tmp_path / "status", needed))
    assert (without.status, "CAP_SYS_RESOURCE" in without.detail) == ("warn", True)
    having = capability_finding(status_file(tmp_path / "status", needed | {WANTED[0]}))
    assert having.status == "ok"


# --- kernel, file systems, devices ---

V1 = "30 20 0:25 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu"
V1_FREEZER = "31 20 0:26 / /sys/fs/cgroup/freezer rw shared:9 - cgroup cgroup rw,freezer"
V2 = "32 20 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
OTHER = "33 20 0:28 / /proc rw - proc proc rw"


@pytest.mark.parametrize(
    ("mounts", "status", "detail"),
    [
        ([V2], "ok", "version 2, with freezer"),
        ([V1, V1_FREEZER], "ok", "version 1, with freezer"),
        ([V1, V1_FREEZER, V2], "ok", "hybrid, with freezer"),
        ([V1], "fail", "version 1, without freezer"),
        ([V1, V2], "fail", "hybrid, without freezer"),
        ([OTHER], "fail", "no cgroup hierarchy is mounted"),
    ],
)
def test_cgroups(tmp_path: Path, mounts: list[str], status: str, detail: str) -> None:
    file = tmp_path / "mountinfo"
    file.write_text("\n".join([OTHER, *mounts]) + "\n")

    finding = cgroup_finding(file)

    assert (finding.status, finding.detail) == (status, detail)


@pytest.mark.parametrize(("kind", "status"), [("tmpfs", "ok"), ("ext4", "warn")])
def test_run_directory(tmp_path: Path, kind: str, status: str) -> None:
    file = tmp_path / "mountinfo"
    file.write_text(f"1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:9 / /run rw - {kind} x rw\n")

    assert run_directory_finding(file).status == status


def test_mount_points_of_any_bytes(tmp_path: Path) -> None:
    """Anybody who may mount gives them their names, and some of them look like lines' ends."""
    file = tmp_path / "mountinfo"
    odd = b"4 1 0:9 / /mnt/\xff\x85\xe2\x80\xa8\x0c rw - tmpfs x rw\n"
    file.write_bytes(odd + f"{V2}\n2 1 0:9 / /run rw - tmpfs x rw\n".encode())
    assert run_directory_finding(file).status == "ok"
    assert cgroup_finding(file).detail == "version 2, with freezer"


def test_run_directory_that_is_no_mount_of_its_own_is_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "mountinfo"
    file.write_text("1 0 8:1 / / rw - ext4 /dev/sda rw\n")

    assert run_directory_finding(file).status == "warn"


@pytest.mark.parametrize(
    ("release", "status"),
    [("5.4.0-26-generic", "warn"), ("5.10.0-8-amd64", "ok"), ("6.12.1", "ok"), ("odd", "warn")],
)
def test_kernel(release: str, status: str) -> None:
    assert kernel_finding(release).status == status


@pytest.mark.parametrize(("size", "status"), [(65536, "warn"), (1048576, "ok")])
def test_pipe_size(tmp_path: Path, size: int, status: str) -> None:
    file = tmp_path / "pipe-max-size"
    file.write_text(f"{size}\n")

    assert pipe_finding(file).status == status


def test_state_directory_that_does_not_exist_yet_is_judged_by_its_parent(tmp_path: Path) -> None:
    finding = state_directory_finding(tmp_path / "not" / "yet")

    assert "MiB free" in finding.detail
    assert not (tmp_path / "not").exists()


def test_state_directory_without_room_fails() -> None:
    finding = state_directory_finding(Path("/proc/1/checkpoint-agent"))  # procfs has no room at all

    assert finding.status == "fail"


@pytest.mark.root
def test_state_directory_where_an_ordinary_user_may_not_look(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    os.setresuid(65534, 65534, 0)
    try:
        finding = state_directory_finding(tmp_path / "closed" / "state")
    finally:
        os.setresuid(0, 0, 0)
    assert (finding.status, "cannot be written" in finding.detail) == ("fail", True)


@pytest.mark.root
def test_state_directory_on_a_read_only_file_system_fails(tmp_path: Path) -> None:
    look = (
        "from pathlib import Path; from agent.doctor.machine import state_directory_finding as f;"
        f"print(f(Path({str(tmp_path)!r}) / 'state'))"
    )
    # The mount lives and dies with a mount namespace of its own.
    script = 'mount -t tmpfs -o ro none "$1" && exec "$2" -c "$3"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", str(tmp_path), sys.executable, look],
        capture_output=True,
        text=True,
        check=True,
    )

    assert "status='fail'" in done.stdout
    assert f"{tmp_path} cannot be written" in done.stdout


DRIVER = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build  (x@y)\n"


@pytest.mark.parametrize(
    ("version", "status"), [("535.183.01", "warn"), ("570.86.15", "ok"), ("580.65.06", "ok")]
)
def test_gpu_driver(tmp_path: Path, version: str, status: str) -> None:
    file = tmp_path / "version"
    file.write_text(DRIVER.format(version))
    module = tmp_path / "module"
    module.write_text(version + "\n")

    assert gpu_finding(file, tmp_path / "none") == gpu_finding(tmp_path / "none", module)
    finding = gpu_finding(file, module)
    assert (finding.status, finding.detail) == (status, version)


def test_no_gpu_driver_is_fine(tmp_path: Path) -> None:
    finding = gpu_finding(tmp_path / "none", tmp_path / "none")

    assert (finding.status, finding.detail) == ("ok", "no GPU driver")
