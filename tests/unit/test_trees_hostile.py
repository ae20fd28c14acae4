"""Tars that lead elsewhere, into directories that somebody has prepared: the rest stays as it is.

tar has checks of its own against most of these. That it is not only those that hold is shown with
a tar that has been told to leave them all out.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest

from agent.errors import RestoreFailed
from agent.host import confined, process
from agent.manifest import ROOTFS_DIFF, Image
from agent.restore.trees import unpack
from agent.store.memory import MemoryStore
from tests.checkpoints import write_checkpoint
from tests.tree_facts import Facts, facts_of
from tests.waiting import eventually

pytestmark = pytest.mark.root

Prepare = Callable[[Path], None]

# Of GNU tar, to write wherever it is sent: absolute names, `..`, links, over what is there.
_CARELESS = ("--absolute-names", "--overwrite", "--keep-directory-symlink")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What has to stay as it is: it lies beside the directory."""
    made = tmp_path / "outside"
    made.mkdir(mode=0o700)
    (made / "victim").write_text("as it was")
    (made / "victim").chmod(0o600)
    (made / "folder").mkdir()
    return made


@pytest.fixture
def found(tmp_path: Path) -> Path:
    """Where the tar goes."""
    made = tmp_path / "found"
    made.mkdir()
    return made


def symlink(name: str, to: str) -> tuple[tarfile.TarInfo, bytes]:
    return _member(name, tarfile.SYMTYPE, linkname=to)


def link(name: str, to: str) -> tuple[tarfile.TarInfo, bytes]:
    return _member(name, tarfile.LNKTYPE, linkname=to)


def folder(name: str) -> tuple[tarfile.TarInfo, bytes]:
    return _member(name, tarfile.DIRTYPE, mode=0o777)


def file(name: str) -> tuple[tarfile.TarInfo, bytes]:
    return _member(name, tarfile.REGTYPE, content=b"written by a stranger", mode=0o4777)


def _member(
    name: str, kind: bytes, *, content: bytes = b"", **fields: object
) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, len(content)
    member.uid = member.gid = 4711
    # Attributes that would be a change as well, and an error elsewhere.
    member.pax_headers = {"SCHILY.xattr.user.note": "changed"} if kind == tarfile.REGTYPE else {}
    for field, value in fields.items():
        setattr(member, field, value)
    return member, content


def packed(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    data = BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, content in members:
            archive.addfile(member, BytesIO(content))
    return data.getvalue()


def tars(outside: Path) -> dict[str, bytes]:
    """Every one of them wants to change something in ``outside``."""
    to, up = str(outside), "../outside"
    return {
        "an absolute name": packed(file(f"{to}/evil"), file(f"{to}/victim")),
        "upwards": packed(file(f"{up}/evil"), file(f"./a/../{up}/victim")),
        "through a link": packed(symlink("l", to), file("l/evil"), file("l/victim")),
        "through a link upwards": packed(symlink("l", up), file("l/evil"), file("l/victim")),
        "through two links": packed(
            symlink("here", "."), symlink("l", "here/../outside"), file("l/evil")
        ),
        "through a link that is hard": packed(
            symlink("l", f"{to}/victim"), link("h", "l"), file("h")
        ),
        "a hard link": packed(link("h", f"{to}/victim"), file("h")),
        "a hard link upwards": packed(link("h", f"{up}/victim"), file("h")),
        "a hard link through a link": packed(symlink("l", to), link("h", "l/victim"), file("h")),
        "a folder that was a link": packed(symlink("l", f"{to}/folder"), folder("l")),
        "a folder in a link": packed(symlink("l", to), folder("l/folder"), folder("l/new")),
        "a link that is written to": packed(symlink("l", f"{to}/victim"), file("l")),
        "itself a link": packed(symlink(".", to), file("./evil")),
        "its parent": packed(folder(".."), folder("./..")),
    }  # fmt: skip


def prepared(outside: Path) -> dict[str, tuple[Prepare, bytes]]:
    """What a process that had the directory before may have left there, and what it waits for."""
    return {
        "a link to a directory": (
            lambda at: (at / "l").symlink_to(outside),
            packed(file("l/evil"), folder("l/folder")),
        ),
        "a link upwards": (
            lambda at: (at / "l").symlink_to("../outside"), packed(file("./l/victim"))
        ),
        "a link to a file": (
            lambda at: (at / "l").symlink_to(outside / "victim"), packed(file("l"))
        ),
        "the same file": (lambda at: (at / "l").hardlink_to(outside / "victim"), packed(file("l"))),
    }  # fmt: skip


NAMES = list(tars(Path("/")))
PREPARED = list(prepared(Path("/")))


@contextlib.contextmanager
def untouched(outside: Path) -> Iterator[None]:
    """Nothing in it, itself, or beside it is another afterwards."""

    def around() -> tuple[dict[str, Facts], list[str], int]:
        beside = outside.parent.stat()
        facts = facts_of(outside)
        return facts, sorted(os.listdir(outside.parent)), beside.st_mode

    (outside.parent / "log").touch()
    before = around()
    yield
    assert around() == before


async def put(content: bytes, found: Path) -> None:
    """Whether it says so or not: what counts is what has become of the rest."""
    store = MemoryStore("hostile")
    manifest = write_checkpoint(store, {ROOTFS_DIFF: content})
    image = manifest.members[0].image(ROOTFS_DIFF)
    assert isinstance(image, Image)
    with contextlib.suppress(RestoreFailed):
        await unpack(store, manifest, image, found, log=found.parent / "log")


@pytest.mark.parametrize("name", NAMES)
async def test_a_tar_that_leads_elsewhere(outside: Path, found: Path, name: str) -> None:
    with untouched(outside):
        await put(tars(outside)[name], found)


@pytest.mark.parametrize("name", PREPARED)
async def test_a_directory_that_leads_elsewhere(outside: Path, found: Path, name: str) -> None:
    prepare, content = prepared(outside)[name]
    prepare(found)
    with untouched(outside) if name != "the same file" else contextlib.nullcontext():
        await put(content, found)
    assert (outside / "victim").read_text() == "as it was"


def carelessly(content: bytes, found: Path, *, alone: bool) -> None:
    """By a tar without its own checks, confined or not."""
    program = "/usr/bin/tar"
    words = ["--extract", "--file=-", "--xattrs", *_CARELESS]
    if alone:
        argv = [program, *words, "-C", str(found)]
    else:
        argv = confined.command(str(found), program, *words, "-C", confined.INSIDE)
    subprocess.run(argv, input=content, capture_output=True, check=False)


@pytest.mark.parametrize("name", NAMES)
def test_the_kernel_holds_a_careless_tar(outside: Path, found: Path, name: str) -> None:
    with untouched(outside):
        carelessly(tars(outside)[name], found, alone=False)


def test_a_careless_tar_would_do_damage(outside: Path, found: Path) -> None:
    """Otherwise the test before this one showed nothing."""
    for name in ("an absolute name", "upwards", "through a link"):
        (outside / "evil").unlink(missing_ok=True)
        carelessly(tars(outside)[name], found, alone=True)
        assert (outside / "evil").exists(), name


def test_what_a_confined_program_sees(tmp_path: Path, found: Path) -> None:
    (found / "file").write_text("inside")
    script = "ls / && cat /directory/file && cat /proc/self/mounts; echo x >/usr/x; echo x >/x"
    done = subprocess.run(
        confined.command(str(found), "/bin/sh", "-c", script), capture_output=True, text=True
    )
    *seen, content = done.stdout.split()
    assert content == "inside"
    assert {"directory", "usr"} <= set(seen) <= {"directory", "usr", "bin", "nix"} | {
        "lib", "lib32", "lib64"
    }  # fmt: skip
    assert done.stderr.count("Read-only file system") == 2
    assert "/proc/self/mounts: No such file" in done.stderr


def test_devices_can_be_made_and_not_used(found: Path) -> None:
    """A tar has a device, and then contents for it. One that is careless would write to the disk.

    This one is the null device, which takes anything; but not here.
    """
    script = "mknod /directory/null c 1 3 && echo x >/directory/null"
    done = subprocess.run(
        confined.command(str(found), "/bin/sh", "-c", script), capture_output=True, text=True
    )
    assert (found / "null").is_char_device()
    assert "Permission denied" in done.stderr


def test_a_program_that_is_somewhere_else(tmp_path: Path, found: Path) -> None:
    program = tmp_path / "bin" / "program"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho here\n")
    program.chmod(0o755)
    done = subprocess.run(
        confined.command(str(found), str(program)), capture_output=True, text=True, check=True
    )
    assert done.stdout == "here\n"


def test_it_ends_with_who_has_started_it(found: Path) -> None:
    """Whoever cleans up after a killed agent finds nobody at work."""
    script = "echo; exec sleep 1000"
    argv = confined.command(str(found), "/bin/sh", "-c", script)
    start = f"import subprocess, time; print(subprocess.Popen({argv!r}).pid); time.sleep(1000)"
    with subprocess.Popen(
        [sys.executable, "-u", "-c", start], stdout=subprocess.PIPE, text=True
    ) as agent:
        assert agent.stdout is not None
        pid = int(agent.stdout.readline())
        try:
            agent.stdout.readline()  # it runs
        finally:
            agent.kill()
    try:
        eventually(lambda: not process.is_alive(pid), "its end")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_confinement_that_cannot_be_made(tmp_path: Path) -> None:
    done = subprocess.run(
        confined.command(str(tmp_path / "nowhere"), "/bin/true"), capture_output=True, text=True
    )
    assert done.returncode == confined.FAILED
    assert "nowhere" in done.stderr
