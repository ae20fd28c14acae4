"""What of the driver is brought into a container again, and what never is."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from agent.host import devices
from agent.host.injected import find_injected, is_of_driver
from agent.host.injecting import Recorded, inject, read_mounts
from agent.host.launcher import wire

pytestmark = pytest.mark.root

LIBRARY = "/usr/lib/x86_64-linux-gnu/libcuda.so.570.124.06"


@pytest.mark.parametrize(
    "path",
    [
        LIBRARY,
        "/usr/lib64/libnvidia-ml.so.570.124.06",
        "/usr/lib/x86_64-linux-gnu/libGLX_nvidia.so.570.124.06",
        "/usr/bin/nvidia-smi",
        "/lib/firmware/nvidia/570.124.06/gsp_ga10x.bin",
        "/dev/nvidiactl",
        "/dev/nvidia-caps/nvidia-cap1",
        "/proc/driver/nvidia/gpus/0000:01:00.0",
        "/run/nvidia-persistenced/socket",
        "/usr/share/egl/egl_external_platform.d/15_nvidia_gbm.json",
    ],
)
def test_what_belongs_to_the_driver(path: str) -> None:
    assert is_of_driver(path)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/shadow",
        "/",
        "/usr/lib/x86_64-linux-gnu/libc.so.6",
        "/dev/nvidia0/../../etc/shadow",
        "/dev/nvidia0]:/etc/shadow",
        '/usr/lib/libcuda.so"\nexternal "mnt[/a]:/etc/shadow',
        "/home/somebody/.config/not-nvidia-at-all",
    ],
)
def test_what_does_not(path: str) -> None:
    assert not is_of_driver(path)


def recorded(source: Path | str, point: str = LIBRARY) -> list[Recorded]:
    return [Recorded("/", ""), Recorded(point, f"nvidia:{source}")]


def test_a_file_of_this_machine(tmp_path: Path) -> None:
    source = tmp_path / "libcuda.so.570.124.06"
    source.touch()
    found = inject(recorded(source), {})
    assert found.words == ("--external", f"mnt[nvidia:{source}]:{source}")
    assert found.points == ((LIBRARY, False),)


def test_one_of_another_version_of_a_directory(tmp_path: Path) -> None:
    here = tmp_path / "nvidia" / "580.65.06"
    here.mkdir(parents=True)
    (here / "gsp.bin").touch()
    found = inject(recorded(tmp_path / "nvidia/570.124.06/gsp.bin"), {})
    assert found.words[1].endswith(f"]:{here}/gsp.bin")


def test_what_an_image_may_not_ask_for(tmp_path: Path) -> None:
    """Other files; and those of a name that somebody else may have put there."""
    for asked in ("/etc/shadow", f"{tmp_path}/../../etc/shadow"):
        with pytest.raises(FileNotFoundError):
            inject(recorded(asked), {})
    link = tmp_path / "nvidia-smi"
    link.symlink_to("/etc/shadow")
    with pytest.raises(FileNotFoundError):
        inject(recorded(link), {})
    anybodys = tmp_path / "open"
    anybodys.mkdir()
    anybodys.chmod(0o777)
    (anybodys / "nvidia-smi").touch()
    with pytest.raises(FileNotFoundError):
        inject(recorded(anybodys / "nvidia-smi"), {})
    others = tmp_path / "nvidia-debugdump"
    others.touch()
    os.chown(others, 65534, 65534)
    with pytest.raises(FileNotFoundError):
        inject(recorded(others), {})


def test_the_configuration_names_what_takes_the_place() -> None:
    newer = {"destination": LIBRARY.replace("570.124.06", "580.65.06"), "source": "/driver/cuda"}
    config = {"mounts": [newer, {"destination": "/etc/hosts", "source": "/hosts"}]}
    found = inject([Recorded(LIBRARY, LIBRARY), Recorded("/etc/hosts", "/etc/hosts")], config)
    assert found.words == ("--external", f"mnt[{LIBRARY}]:/driver/cuda")
    with pytest.raises(FileNotFoundError):
        inject([Recorded(LIBRARY, LIBRARY)], {"mounts": []})


def test_mount_points_in_other_mounts_are_criu_s(tmp_path: Path) -> None:
    node = tmp_path / "nvidia0"
    node.touch()
    found = inject([Recorded("/dev", ""), *recorded(node, "/dev/nvidia0")], {})
    assert found.points == ()


def test_mount_points_are_made_and_no_link_is_followed(tmp_path: Path) -> None:
    source, root, outside = tmp_path / "nvidia-smi", tmp_path / "root", tmp_path / "outside"
    source.touch()
    root.mkdir()
    outside.mkdir()
    inject(recorded(source, "/usr/bin/nvidia-smi"), {}).prepare(root)
    assert (root / "usr/bin/nvidia-smi").is_file()
    (root / "opt").symlink_to(outside)
    with pytest.raises(OSError, match="opt"):
        inject(recorded(source, "/opt/nvidia-smi"), {}).prepare(root)
    assert list(outside.iterdir()) == []


def test_a_table_that_is_cut_off() -> None:
    with pytest.raises(ValueError, match="cut off"):
        read_mounts(b"m" * 8 + (100).to_bytes(4, "little") + b"short")
    assert read_mounts(b"m" * 8) == []


@pytest.mark.parametrize("field", [7, 18])
def test_a_table_with_names_that_are_no_paths(field: int) -> None:
    entry = wire.text(field, b"nvidia:/dev/nvidia0\0")
    with pytest.raises(ValueError, match="without a name"):
        read_mounts(b"m" * 8 + len(entry).to_bytes(4, "little") + entry)


def test_a_process_that_is_gone() -> None:
    assert find_injected(999_999_999, {}) == []


def node(path: str, *, number: tuple[int, int] = (1, 3)) -> dict[str, object]:
    major, minor = number
    return {"path": path, "type": "c", "major": major, "minor": minor, "fileMode": 0o600}


def test_device_nodes_are_renewed() -> None:
    """In this very process's /dev, of which it is root."""
    name = f"checkpoint-agent-test-{os.getpid()}"
    path = Path("/dev") / name / "nvidia0"
    try:
        for number in ((1, 3), (1, 5)):
            devices.renew(os.getpid(), {"linux": {"devices": [node(str(path), number=number)]}})
            found = path.stat()
            assert found.st_rdev == os.makedev(*number)
            assert stat.S_IMODE(found.st_mode) == 0o600
        path.unlink()
        path.write_text("the container's own")
        devices.renew(os.getpid(), {"linux": {"devices": [node(str(path))]}})
        assert path.read_text() == "the container's own"
    finally:
        path.unlink(missing_ok=True)
        path.parent.rmdir()


def test_device_nodes_elsewhere_are_nobodys_business(tmp_path: Path) -> None:
    paths = [f"{tmp_path}/nvidia0", f"/dev/..{tmp_path}/nvidia0"]
    devices.renew(os.getpid(), {"linux": {"devices": [node(path) for path in paths]}})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "mount",
    [
        {"destination": "/dev", "type": "bind", "source": "/dev"},
        {"destination": "/dev/", "type": "none", "source": "/dev", "options": ["rbind", "rw"]},
    ],
)
def test_device_nodes_of_the_machine_are_left_alone(mount: dict[str, object]) -> None:
    """Where its own /dev is the container's, runc makes none in it either."""
    path = Path("/dev") / f"checkpoint-agent-test-{os.getpid()}" / "nvidia0"
    config = {"mounts": [mount], "linux": {"devices": [node(str(path))]}}
    devices.renew(os.getpid(), config)
    assert not path.parent.exists()
