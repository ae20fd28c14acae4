"""Writable layers: overlay's marks against a list of what is deleted, in tars of every kind."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.archives import content, entries, marked, member, tar, unmarked

HOLE = 8 << 20
OPAQUE = "SCHILY.xattr.trusted.overlay.opaque"


def whiteout(name: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, tarfile.CHRTYPE, devmajor=0, devminor=0, mode=0), b""


def directory(name: str, **attributes: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, tarfile.DIRTYPE, mode=0o755, pax_headers=attributes), b""


def created(root: Path, *, sparse: bool = True) -> bytes:
    """A directory as the agent takes it."""
    words = ["tar", "--create", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner"]
    words += ["--sparse"] if sparse else []
    return subprocess.run([*words, "-C", root, "."], capture_output=True, check=True).stdout


def unpacked(root: Path, data: bytes) -> Path:
    root.mkdir()
    words = ["tar", "--extract", "--xattrs", "--xattrs-include=*", "--numeric-owner"]
    subprocess.run([*words, "--same-owner", "-p", "-C", root], input=data, check=True)
    return root


def upper(root: Path) -> Path:
    """An overlay's upper directory with everything difficult."""
    for folder in (root, root / "etc", root / "replaced"):
        folder.mkdir()
    for name in ("gone", "gone too"):
        os.mknod(root / "etc" / name, 0o020000)
    os.setxattr(root / "replaced", "trusted.overlay.opaque", b"y")
    os.setxattr(root, "trusted.overlay.impure", b"y")
    os.setxattr(root / "etc", "trusted.overlay.origin", b"\0\xfb\n\1")
    (root / "replaced" / "new").write_text("new")
    (root / "kept").write_text("kept")
    os.setxattr(root / "kept", "user.note", b"a\0b\n1 c=d")
    os.link(root / "kept", root / "twin")
    (root / "link").symlink_to("/etc/gone")
    (root / ("n" * 200 + "\u00e9\n")).write_text("a long name")
    with (root / "sparse").open("wb") as file:
        file.seek(HOLE)
        file.write(b"end")
    return root


@pytest.mark.root
@pytest.mark.parametrize("step", [1, 511, 1 << 20])
def test_a_layer_loses_its_marks_and_nothing_else(tmp_path: Path, step: int) -> None:
    layer = created(upper(tmp_path / "upper"))
    data, said = unmarked(layer, step)
    assert sorted(said.deleted) == ["/etc/gone", "/etc/gone too"]
    assert said.replaced == ["/replaced"]
    assert len(data) == len(layer)
    found = unpacked(tmp_path / "found", data)
    assert os.listdir(found / "etc") == []
    assert os.listxattr(found / "etc") == []
    assert os.listxattr(found) == []
    assert os.getxattr(found / "kept", "user.note") == b"a\0b\n1 c=d"
    assert (found / "twin").stat().st_ino == (found / "kept").stat().st_ino
    assert (found / "link").readlink() == Path("/etc/gone")
    assert (found / ("n" * 200 + "\u00e9\n")).read_text() == "a long name"
    sparse = (found / "sparse").stat()
    assert (sparse.st_size, sparse.st_blocks * 512 < HOLE) == (HOLE + 3, True)


@pytest.mark.root
def test_out_and_in_again_is_the_same_layer(tmp_path: Path) -> None:
    data, said = unmarked(created(upper(tmp_path / "upper")))
    found = unpacked(tmp_path / "found", marked(data, said.deleted))
    assert [(found / "etc" / name).stat().st_rdev for name in ("gone", "gone too")] == [0, 0]
    assert (found / "etc" / "gone").is_char_device()
    assert os.getxattr(found / "replaced", "trusted.overlay.opaque") == b"y"
    before = {path.relative_to(tmp_path / "upper") for path in (tmp_path / "upper").rglob("*")}
    assert {path.relative_to(found) for path in found.rglob("*")} == before


def test_whiteouts_may_be_links_to_one_another() -> None:
    second = member("./a/second", tarfile.LNKTYPE, linkname="./a/first")
    real = member("./real link", tarfile.LNKTYPE, linkname="./file")
    layer = tar([whiteout("./a/first"), (second, b""), ("./file", b"1"), (real, b"")])
    data, said = unmarked(layer)
    assert said.deleted == ["/a/first", "/a/second"]
    assert list(entries(data)) == ["./file", "./real link"]


def test_another_device_is_no_whiteout() -> None:
    null = member("./null", tarfile.CHRTYPE, devmajor=1, devminor=3)
    data, said = unmarked(tar([(null, b"")]))
    assert (said.deleted, list(entries(data))) == ([], ["./null"])


def test_a_layer_of_whiteouts_alone_is_an_empty_tar() -> None:
    data, said = unmarked(tar([whiteout("./gone")]))
    assert (said.deleted, entries(data)) == (["/gone"], {})


@pytest.mark.parametrize("note", ["redirect", "metacopy"])
def test_what_is_only_noted_in_a_layer_is_refused(note: str) -> None:
    attributes = {f"SCHILY.xattr.trusted.overlay.{note}": "/old"}
    with pytest.raises(ValueError, match="/moved is kept in the image"):
        unmarked(tar([directory("./moved", **attributes)]))


@pytest.mark.parametrize("space", ["trusted", "user"])
def test_a_replaced_directory_stays_marked(space: str) -> None:
    """In a user namespace overlay's attributes are called otherwise."""
    attributes = {f"SCHILY.xattr.{space}.overlay.{name}": "y" for name in ("opaque", "impure")}
    data, said = unmarked(tar([directory("./d\udcff", **attributes)]))
    assert said.replaced == ["/d\\xff"]
    [found] = entries(data).values()
    assert [name for name in found.pax_headers if "overlay" in name] == [
        f"SCHILY.xattr.{space}.overlay.opaque"
    ]


def test_a_deleted_name_that_json_cannot_say() -> None:
    with pytest.raises(ValueError, match="no UTF-8"):
        unmarked(tar([whiteout("./a\udcff")]))


def test_what_is_listed_and_there_was_replaced() -> None:
    """A list is made with what was below a directory that was made anew."""
    found = entries(marked(tar([directory("d"), ("d/new", b"1")]), ["/d", "/gone", "/e/f"]))
    assert found["./gone"].ischr()
    assert found["./e/f"].ischr()
    assert found["./d"].isdir()
    assert found["./d"].pax_headers[OPAQUE] == "y"
    assert found["./d"].mode == 0o755


def test_a_directory_that_only_its_files_tell_of() -> None:
    found = entries(marked(tar([("d/e/new", b"1")]), ["/d"]))
    assert found["./d"].pax_headers[OPAQUE] == "y"


def test_marks_of_oci_layers() -> None:
    layer = tar(
        [("etc/.wh.passwd", b""), ("opt/.wh..wh..opq", b""), ("opt/a", b"1"), (".wh.x", b"")]
    )
    found = entries(marked(layer))
    assert sorted(found) == ["./etc/passwd", "./opt", "./x", "opt/a"]
    assert found["./etc/passwd"].ischr()
    assert found["./opt"].pax_headers[OPAQUE] == "y"


def test_a_volume_has_no_marks() -> None:
    data = marked(tar([(".wh.file", b"1")]), is_layer=False)
    assert content(data) == {".wh.file": b"1"}


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "a/.."])
def test_names_that_lead_out(name: str) -> None:
    with pytest.raises(ValueError, match="a file is called"):
        marked(tar([(name, b"1")]))


@pytest.mark.parametrize("deleted", ["../x", "/a/../../x", "x\0y"])
def test_deleted_names_that_lead_out(deleted: str) -> None:
    with pytest.raises(ValueError, match="a file is called"):
        marked(tar([]), [deleted])


@pytest.mark.parametrize("deleted", ["/", "", "."])
def test_the_root_cannot_be_deleted(deleted: str) -> None:
    with pytest.raises(ValueError, match="root"):
        marked(tar([]), [deleted])


def test_a_link_to_a_file_outside() -> None:
    link = member("a", tarfile.LNKTYPE, linkname="../../etc/shadow")
    with pytest.raises(ValueError, match="a file is called"):
        marked(tar([(link, b"")]))


def test_a_tar_that_is_cut_off_anywhere() -> None:
    layer = tar([("./" + "n" * 300, b"1" * 1000), ("./b", b"2")])
    end = layer.rindex(b"ustar") - 257 + 1024
    for length in range(0, end, 256):
        with pytest.raises(ValueError, match=r"cut off|no tar"):
            marked(layer[:length])
