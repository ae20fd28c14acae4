"""Containers on overlays, as container engines make them, and what they do to their files."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from agent.checkpoint import CheckpointRequest, MemberRequest, checkpoint
from agent.targets import Kind
from bench.bundle import COUNTER
from bench.runc import Container
from tests.integration.lab import Lab, target_of
from tests.tree_facts import HOLE, acl


@dataclass(slots=True)
class Overlaid:
    """A container whose root filesystem is an overlay; its mounts go with the lab's."""

    container: Container
    upper: Path

    @property
    def bundle(self) -> Path:
        """Where everything of it is."""
        return self.container.bundle.path

    @property
    def rootfs(self) -> Path:
        """Where it is mounted."""
        return self.bundle / "rootfs"

    def renew(self) -> None:
        """Put an overlay that nobody has used in its place, as a new container has."""
        subprocess.run(["umount", self.rootfs], check=True)
        self.upper = _mount(self.bundle, self.upper.name + "+")

    def is_fresh(self) -> bool:
        """Whether it is mounted and nothing was written to it."""
        return self.rootfs.is_mount() and not os.listdir(self.upper)


def overlaid(lab: Lab) -> Overlaid:
    """A container of a counter that has just been started."""
    bundle = lab.runc.build(COUNTER)
    rootfs = bundle.path / "rootfs"
    rootfs.rename(bundle.path / "lower")
    _fill(bundle.path / "lower")
    rootfs.mkdir()
    upper = _mount(bundle.path, "upper")
    return Overlaid(lab.runc.start(bundle), upper)


def _mount(bundle: Path, name: str) -> Path:
    upper, work = bundle / name, bundle / f"work-{name}"
    upper.mkdir(mode=0o755)
    work.mkdir()
    options = f"lowerdir={bundle}/lower,upperdir={upper},workdir={work}"
    at = str(bundle / "rootfs")
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, at], check=True)
    return upper


async def stopped_checkpoint(lab: Lab, container: Container) -> str:
    """A checkpoint of it with its layer; it has ended."""
    members = (MemberRequest(target_of(container), "app"),)
    request = CheckpointRequest(members, lab.store, kind=Kind.ROOTFS, stop=True)
    return (await checkpoint(request, tools=lab.tools, state_dir=lab.state_dir)).checkpoint_id


def _fill(lower: Path) -> None:
    """What an image has, for a container to change."""
    for name in ("etc", "old/sub", "emptied", "moved"):
        (lower / name).mkdir(parents=True)
    for name in ("etc/gone", "old/file", "old/sub/file", "emptied/file", "etc/chowned", "etc/kept"):
        (lower / name).write_text(f"{name} of the image")
    os.link(lower / "etc" / "kept", lower / "etc" / "kept too")


def change(root: Path) -> None:
    """What a container does to its files: all kinds that leave a trace of their own in a layer."""
    (root / "etc" / "gone").unlink()
    subprocess.run(["rm", "-r", root / "old"], check=True)
    (root / "old" / "sub").mkdir(parents=True)
    (root / "old" / "sub" / "new").write_text("in directories that were replaced")
    (root / "emptied" / "file").unlink()
    (root / "etc" / "kept").write_text("copied up, its twin not")
    os.chown(root / "etc" / "chowned", 12345, 54321)
    (root / "etc" / "chowned").chmod(0o4751)
    os.setxattr(root / "etc" / "chowned", "user.note", b"kept\0whole")
    os.setxattr(root / "etc", "system.posix_acl_default", acl(4711))
    (root / "moved").rmdir()
    (root / "moved").write_text("now a file")
    with (root / "sparse").open("wb") as file:
        file.seek(HOLE)
        file.write(b"end")
    os.link(root / "sparse", root / "twin")
    (root / "link").symlink_to("/nowhere")
    os.mkfifo(root / "fifo")
    (root / ("n" * 200 + "\n\u00e9")).write_text("a name")
    (root / "new").mkdir(mode=0o2770)
    os.utime(root / "new", ns=(1, 1_234_567_890_123_456_789))
