"""GPUs that are not there: stand-ins for NVIDIA's libraries, and processes that use them.

The libraries are built from tests/fakes/cuda and loaded by the real bindings; the processes are
real ones, in a container or not, which CRIU can only dump while the driver has them checkpointed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from agent.host.process import tree
from bench.bundle import Bundle
from tests.waiting import eventually

_SOURCES = Path(__file__).parent / "fakes" / "cuda"

# As in the file `gpus`. New for each run of tests: NVML tells of the processes of all of them.
UUID, OTHER = uuid.uuid4().hex, uuid.uuid4().hex
# As NVML writes them.
GPU, OTHER_GPU = (f"GPU-{uuid.UUID(each)}" for each in (UUID, OTHER))
MODEL = "NVIDIA H100 80GB HBM3"


@dataclass(frozen=True, slots=True)
class FakeGpus:
    """A driver with its GPUs, as a directory of libraries.

    Attributes:
        program: a process that computes on one of them; see tests/fakes/cuda/program.c.
    """

    libraries: Path
    program: Path

    def install(self, *gpus: str) -> None:
        """Lines UUID MEMORY_MIB MIG NAME, one for each GPU."""
        (self.libraries / "gpus").write_text("".join(f"{line}\n" for line in gpus))

    def say(self, what: str, value: str = "") -> None:
        """``version`` (13000), ``driver`` (580.65.06), ``mps`` or ``blind``."""
        (self.libraries / what).write_text(value)


def fake_gpus(directory: Path) -> FakeGpus:
    """Build a driver with one GPU in a directory that is not there yet; takes about a second."""
    directory.mkdir(parents=True)
    for name, source in (("libcuda.so.1", "libcuda.c"), ("libnvidia-ml.so.1", "libnvml.c")):
        _compile(source, directory / name, "-shared", "-fPIC", f"-Wl,-soname,{name}")
    _compile("program.c", directory / "program", "-static", "-pthread")
    made = FakeGpus(directory, directory / "program")
    made.install(f"{UUID} 81920 0 {MODEL}")
    return made


def _compile(source: str, target: Path, *options: str) -> None:
    words = ["gcc", "-Wall", "-Wextra", "-Werror", "-O1", *options]
    subprocess.run([*words, "-o", target, _SOURCES / source], check=True)


@contextmanager
def gpu_process(gpus: FakeGpus, root: Path, mebibytes: int = 4) -> Iterator[GpuProcess]:
    """A process that computes on the GPU, in a root directory of its own; killed at the end."""
    (root / "tmp").mkdir(parents=True)
    for name in ("program", "libcuda.so.1"):
        shutil.copy(gpus.libraries / name, root)
    process = subprocess.Popen(
        ["chroot", root, "/program", "/libcuda.so.1", str(mebibytes), UUID],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        made = GpuProcess(process.pid, process.pid, root)
        eventually(lambda: made.has_begun, "computing")
        yield made
    finally:
        process.kill()
        process.wait()


# In a /dev of its own, as a container's: a file with a GPU's name that it maps, and nodes.
_WITH_DEVICES = """
import mmap, os, stat, subprocess
subprocess.run(["mount", "-t", "tmpfs", "none", "/dev"], check=True)
for minor in (3, 5, 255):
    name = "nvidiactl" if minor == 255 else f"nvidia{minor}"
    os.mknod(f"/dev/{name}", stat.S_IFCHR, os.makedev(195, minor))
with open("/dev/nvidia7", "w+b") as file:
    file.truncate(4096)
    mapped = mmap.mmap(file.fileno(), 4096)
print(flush=True)
input()
"""


@contextmanager
def process_with_devices() -> Iterator[int]:
    """One that has nodes of the GPUs 3 and 5, and a GPU mapped of which no driver knows."""
    with subprocess.Popen(
        ["unshare", "--mount", sys.executable, "-IS", "-c", _WITH_DEVICES],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        yield process.pid
        process.kill()


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """One that computes; ``inner`` is its pid in its own namespace, ``root`` its root directory."""

    pid: int
    inner: int
    root: Path

    @property
    def has_begun(self) -> bool:
        """Whether it has computed anything."""
        return self._box("steps").exists()

    @property
    def has_device(self) -> bool:
        """Whether it has memory on a GPU."""
        return self._box("device").exists()

    @property
    def steps(self) -> int:
        """How far it has got."""
        return int(self._box("steps").read_text())

    @property
    def broken(self) -> str:
        """What was wrong with its GPU's memory; "" while nothing was."""
        box = self._box("broken")
        return box.read_text() if box.exists() else ""

    def goes_on(self) -> None:
        """Returns when it has computed something."""
        before = self.steps
        eventually(lambda: self.steps > before + 1, "computing on")
        assert not self.broken

    def stands_still(self) -> None:
        """It does not compute; looks for a while, in which it would do some ten steps."""
        time.sleep(0.02)
        before = self.steps
        time.sleep(0.1)
        assert self.steps == before

    def suffer(self, fault: str) -> None:
        """What goes wrong from now on: ``CALL WHAT NUMBER``, see tests/fakes/cuda/mailbox.h."""
        self._box("fault").write_text(fault)

    def recover(self) -> None:
        """Nothing goes wrong any more."""
        self._box("fault").unlink(missing_ok=True)

    def _box(self, name: str) -> Path:
        return self.root / "tmp" / "cuda" / f"{self.inner}.{name}"


def add_gpu_processes(gpus: FakeGpus, bundle: Bundle, processes: int = 1) -> None:
    """Have a container's bundle run so many of them beside its first process."""
    root = bundle.path / "rootfs"
    for name in ("program", "libcuda.so.1"):
        shutil.copy(gpus.libraries / name, root)
    path = bundle.path / "config.json"
    config = json.loads(path.read_text())
    first = " ".join(config["process"]["args"])
    others = f"/program /libcuda.so.1 4 {UUID} & " * processes
    config["process"]["args"] = ["/bin/sh", "-c", f"{others}exec {first}"]
    path.write_text(json.dumps(config))


def gpu_processes_of(pid: int) -> list[GpuProcess]:
    """Those of a container by its first process, once all of them compute."""
    # A shell starts them, and each is one for a moment.
    eventually(lambda: "sh" not in _names(pid).values(), "the programs having been started")
    root = Path(f"/proc/{pid}/root")
    found = []
    for each, name in _names(pid).items():
        if name == "program":
            status = Path(f"/proc/{each}/status").read_text()
            inner = int(status.partition("\nNSpid:")[2].split("\n")[0].split()[-1])
            found.append(GpuProcess(each, inner, root))
    for made in found:
        eventually(lambda: made.has_begun, "computing")  # noqa: B023 - called at once
    return found


def _names(pid: int) -> dict[int, str]:
    """Of all processes of a tree."""
    found = {}
    for each in tree(pid):
        with suppress(OSError):
            found[each] = Path(f"/proc/{each}/comm").read_text().strip()
    return found
