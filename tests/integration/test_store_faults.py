"""Stores that fail: full and read-only file systems, S3 servers that refuse, vanish or lie."""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import AlreadyExists, InvalidArgument, StoreFailed
from agent.store import Store, open_store
from agent.store.file_tree import Tree
from agent.store.file_writer import PendingFile
from agent.store.object_writer import MAX_BYTES, PART_BYTES
from tests.servers.moto import Fault, MotoServer
from tests.servers.s3 import S3Server, forget_s3
from tests.waiting import descriptors, opened_since

BUCKET = "checkpoints"
MIB = 1 << 20
TWO_PARTS = bytes(PART_BYTES + 1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB, unmounted in the end."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def everything_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def s3_store(server: S3Server, monkeypatch: pytest.MonkeyPatch, bucket: str = BUCKET) -> Store:
    server.log_in(monkeypatch)
    return open_store(server.url(bucket, "/some/prefix"))


@pytest.fixture
def bucket(moto: MotoServer) -> str:
    """One of its own for each test: unfinished uploads are counted by bucket."""
    name = f"faults-{secrets.token_hex(8)}"
    moto.create_bucket(name)
    return name


@pytest.mark.root
@pytest.mark.parametrize("o_tmpfile", [os.O_TMPFILE, os.O_DIRECTORY], ids=["nameless", "named"])
def test_full_disk(small_disk: Path, monkeypatch: pytest.MonkeyPatch, o_tmpfile: int) -> None:
    monkeypatch.setattr(os, "O_TMPFILE", o_tmpfile)
    store = open_store(str(small_disk))
    writer = store.create("c1/stream-000")
    with pytest.raises(StoreFailed, match="No space left on device"):
        writer.write(bytes(3 * MIB))
    with pytest.raises(StoreFailed, match="No space left on device"):
        store.check_writable()
    assert store.list("") == []
    writer.abort()
    assert everything_below(small_disk) == []
    store.check_writable()


@pytest.mark.root
def test_read_only_file_system(small_disk: Path) -> None:
    store = open_store(str(small_disk))
    store.put("c1/a", b"a")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for call in (
        store.check_writable,
        lambda: store.create("c2/a"),
        lambda: store.put("c1/b", b""),
        lambda: store.delete("c1/a"),
        lambda: store.discard("c1"),
    ):
        with pytest.raises(StoreFailed, match="Read-only file system"):
            call()
    assert bytes(store.read("c1/a", 0, 1)) == b"a"
    fresh = open_store(f"{small_disk}/deeper/store")
    with pytest.raises(StoreFailed, match="Read-only file system"):
        fresh.check_writable()


def test_a_file_where_the_store_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "store"):
        store = open_store(str(path))
        with pytest.raises(StoreFailed, match="Not a directory"):
            store.check_writable()


def test_files_and_directories_are_private(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        open_store(str(tmp_path / "new" / "store")).put("c1/a", b"a")
    finally:
        os.umask(previous)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "new").rglob("*")}
    assert modes == {"store": 0o700, "c1": 0o700, "a": 0o600}
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_links_planted_in_a_store_lead_nowhere(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    store = open_store(str(tmp_path / "store"))
    store.put("c1/a", b"a")
    (tmp_path / "store" / "link").symlink_to(outside)
    (tmp_path / "store" / "c1" / "link").symlink_to(outside / "secret")
    os.mkfifo(tmp_path / "store" / "c1" / "fifo")
    for path in ("link/secret", "c1/link", "c1/fifo"):
        with pytest.raises(FileNotFoundError):
            store.read(path, 0, 1)
        with pytest.raises(FileNotFoundError):
            store.size(path)
    with pytest.raises(StoreFailed):
        store.put("link/new", b"")
    with pytest.raises(AlreadyExists):
        store.put("c1/link", b"")
    for directory in ("link", "c1"):
        with contextlib.suppress(StoreFailed):
            store.discard(directory)
    store.delete("link/secret")
    assert [found.path for found in store.list("")] == []
    assert everything_below(outside) == ["secret"]


def test_a_store_may_be_reached_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    open_store(str(tmp_path / "link")).put("c1/a", b"a")
    assert everything_below(tmp_path / "real") == ["c1", "c1/a"]


def test_a_directory_removed_while_a_file_is_made_in_it(tmp_path: Path) -> None:
    seen: list[int] = []

    def start(parent: int) -> PendingFile:
        seen.append(parent)
        if len(seen) < 3:
            (tmp_path / "c1").rmdir()  # what another thread's abort may do at just this moment
        return PendingFile(parent, "a")

    Tree(tmp_path).inside(["c1"], start).close()
    assert len(seen) == 3
    assert everything_below(tmp_path) == ["c1"]


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = descriptors()
    store = open_store(str(tmp_path / "store"))
    store.check_writable()
    store.put("c1/a", b"a")
    store.create("c1/b").abort()
    with pytest.raises(AlreadyExists):
        store.create("c1/a")
    with pytest.raises(FileNotFoundError):
        store.read("c1/none", 0, 1)
    assert bytes(store.read("c1/a", 0, 1)) == b"a"
    store.discard("c1")
    assert opened_since(before) == {}


def test_nobody_at_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # a port that nobody listens on and nobody can take
        server = S3Server(f"http://127.0.0.1:{unused.getsockname()[1]}", "key", "s3cr3t")
        store = s3_store(server, monkeypatch)
        for call in (store.check_writable, lambda: store.create("c1/a"), lambda: store.list("")):
            with pytest.raises(StoreFailed, match="refuses connections"):
                call()


def test_no_such_host(monkeypatch: pytest.MonkeyPatch) -> None:
    store = s3_store(S3Server("http://no-such-host.invalid", "key", "s3cr3t"), monkeypatch)
    with pytest.raises(StoreFailed, match="name cannot be resolved"):
        store.check_writable()


def test_wrong_credentials(swift: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    swift.log_in(monkeypatch)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wr0ng-s3cr3t")
    store = open_store(swift.url(BUCKET))
    for call in (
        store.check_writable,
        lambda: store.create("c1/a"),
        lambda: store.put("c1/a", b""),
        lambda: store.size("c1/a"),
        lambda: store.read("c1/a", 0, 1),
        lambda: store.delete("c1/a"),
        lambda: store.list(""),
        store.directories,
    ):
        with pytest.raises(StoreFailed) as caught:
            call()
        said = f"{caught.value} {caught.value.fields()} {store.url} {store!r}"
        assert "wr0ng-s3cr3t" not in said
        assert "SignatureDoesNotMatch" in said or "403" in said
        assert caught.value.__cause__ is None


def test_no_such_bucket(swift: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    swift.log_in(monkeypatch)
    store = open_store(swift.url("nobodys-bucket"))
    for call in (
        store.check_writable,
        lambda: store.put("c1/a", b""),
        lambda: store.read("c1/a", 0, 1),
        lambda: store.list(""),
    ):
        with pytest.raises(StoreFailed, match="NoSuchBucket"):
            call()


def test_http_needs_to_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_s3(monkeypatch)
    with pytest.raises(InvalidArgument):
        open_store(f"s3://{BUCKET}?endpoint=127.0.0.1:80")


@pytest.mark.parametrize("status", ["403 Forbidden", "400 Bad Request"])
def test_a_part_that_is_refused(
    moto: MotoServer, bucket: str, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    store = s3_store(moto, monkeypatch, bucket)
    writer = store.create("c1/stream-000")
    moto.faults.append(Fault("PUT", "partNumber", status))

    def write_and_commit() -> None:
        for _ in range(6):
            writer.write(bytes(PART_BYTES))
        writer.commit()

    with pytest.raises(StoreFailed, match=status[:3]):
        write_and_commit()
    writer.abort()
    assert moto.unfinished_uploads(bucket) == []
    assert store.list("") == []


def test_an_upload_that_cannot_be_completed(
    moto: MotoServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = s3_store(moto, monkeypatch, bucket)
    writer = store.create("c1/stream-000")
    writer.write(TWO_PARTS)
    moto.faults.append(Fault("POST", "uploadId", "403 Forbidden"))
    with pytest.raises(StoreFailed, match="403"):
        writer.commit()
    writer.abort()
    assert moto.unfinished_uploads(bucket) == []
    assert store.list("") == []


def test_no_parts_stay_after_an_abort(
    moto: MotoServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = s3_store(moto, monkeypatch, bucket)
    writer = store.create("c1/stream-000")
    try:
        writer.write(TWO_PARTS)
        assert len(moto.unfinished_uploads(bucket)) == 1
        raise KeyError("whatever the caller stumbles over")
    except KeyError:
        writer.abort()
    assert moto.unfinished_uploads(bucket) == []
    assert store.list("") == []


def test_no_parts_stay_when_another_was_faster(
    moto: MotoServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = s3_store(moto, monkeypatch, bucket)
    writer = store.create("c1/stream-000")
    writer.write(TWO_PARTS)
    store.put("c1/stream-000", b"faster")
    with pytest.raises(AlreadyExists):
        writer.commit()
    writer.abort()
    assert moto.unfinished_uploads(bucket) == []
    assert bytes(store.read("c1/stream-000", 0, 6)) == b"faster"


def test_check_leaves_no_upload(
    moto: MotoServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = s3_store(moto, monkeypatch, bucket)
    store.check_writable()
    assert moto.unfinished_uploads(bucket) == []


def test_a_busy_server_is_waited_for(
    moto: MotoServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = s3_store(moto, monkeypatch, bucket)
    moto.faults.append(Fault("PUT", "", "503 Slow Down", times=4))
    store.put("c1/manifest", b"manifest")
    moto.faults.append(Fault("PUT", "partNumber", "503 Slow Down", times=2))
    writer = store.create("c1/stream-000")
    writer.write(TWO_PARTS)
    writer.commit()
    assert [found.size for found in store.list("c1")] == [8, len(TWO_PARTS)]


def test_a_put_whose_answer_is_lost(
    moto: MotoServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second attempt finds the first one's object, and must not take it for another's."""
    store = s3_store(moto, monkeypatch, bucket)
    moto.faults.append(Fault("PUT", "", "500 Internal Server Error", times=1, done=True))
    store.put("c1/manifest", b"manifest")
    assert bytes(store.read("c1/manifest", 0, 8)) == b"manifest"
    store.put("c1/other", b"first")
    moto.faults.append(Fault("PUT", "", "500 Internal Server Error", times=1))
    with pytest.raises(AlreadyExists):
        store.put("c1/other", b"second")


def test_an_object_beyond_the_limit_of_parts(
    moto: MotoServer, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    writer = s3_store(moto, monkeypatch, bucket).create("c1/stream-000")
    with (tmp_path / "sparse").open("wb+") as file:
        file.truncate(MAX_BYTES + 1)
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    with mapped, memoryview(mapped) as huge, pytest.raises(StoreFailed, match="use more streams"):
        writer.write(huge)
    writer.abort()
