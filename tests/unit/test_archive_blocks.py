"""Tars block by block, against what tarfile and GNU tar make of the same bytes."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.archive.blocks import END, Entry, TarReader, new_entry
from tests.archives import Bytes, joined, member

NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=300
).filter(lambda name: name not in (".", ".."))
FORMATS = (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)


def read(data: bytes) -> list[tuple[Entry, bytes]]:
    reader = TarReader(Bytes(data))
    return [(entry, joined(reader.content())) for entry in reader]


def made(files: dict[str, bytes], kind: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as opened:
        for name, data in files.items():
            opened.addfile(member(name, size=len(data), mtime=1.5), io.BytesIO(data))
    return out.getvalue()


@settings(max_examples=60, deadline=None)
@given(files=st.dictionaries(NAMES, st.binary(max_size=1500), max_size=5))
@pytest.mark.parametrize("kind", FORMATS)
def test_files_are_those_that_were_put_in(kind: int, files: dict[str, bytes]) -> None:
    found = {entry.name.decode(): data for entry, data in read(made(files, kind))}
    assert found == files


@settings(max_examples=60, deadline=None)
@given(
    name=NAMES,
    mode=st.integers(0, 0o7777),
    owner=st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    note=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
)
def test_tarfile_reads_what_is_made(
    name: str, mode: int, owner: tuple[int, int], note: str
) -> None:
    records = {b"SCHILY.xattr.user.note": note.encode()}
    head = new_entry(name.encode(), size=3, mode=mode, owner=owner, records=records)
    data = head + b"abc".ljust(512, b"\0") + END
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        [found] = opened
        file = opened.extractfile(found)
        assert file is not None
        assert file.read() == b"abc"
    assert (found.name, found.mode, (found.uid, found.gid)) == (name.rstrip("/"), mode, owner)
    assert found.pax_headers["SCHILY.xattr.user.note"] == note


def test_files_larger_than_a_header_can_say() -> None:
    head = new_entry(b"pages-1.img", size=9 << 30)
    with tarfile.open(fileobj=io.BytesIO(head + END)) as opened:
        found = opened.next()
    assert found is not None
    assert found.size == 9 << 30
    [entry] = _first(head)
    assert entry.size == 9 << 30
    out = io.BytesIO()
    info = member("pages-1.img", size=9 << 30)
    out.write(info.tobuf(tarfile.GNU_FORMAT))
    [entry] = _first(out.getvalue())
    assert entry.size == 9 << 30


def _first(data: bytes) -> list[Entry]:
    return [next(iter(TarReader(Bytes(data))))]


@pytest.mark.parametrize(
    "records",
    [
        b"9 a=b\n",
        b"x a=b\n",
        b"5 ab\n",
        b"999 a=b\n",
        b"6 a=bc",
        b" 6 a=b\n",
        b"9999999999999 a=\n",
    ],
)
def test_records_that_are_none(records: bytes) -> None:
    head = new_entry(b"x", b"x", size=len(records)) + records.ljust(512, b"\0")
    with pytest.raises(ValueError, match="attributes of a file are damaged"):
        read(head + new_entry(b"a") + END)


@pytest.mark.parametrize("size", [b"-1", b"1e9", b"9" * 5000])
def test_sizes_that_are_none(size: bytes) -> None:
    with pytest.raises(ValueError, match="a number is none"):
        read(new_entry(b"a", records={b"size": size}) + END)


def test_a_record_counts_for_more_than_a_header() -> None:
    """To every reader the same bytes are content: also where it is none of them."""
    data = new_entry(b"a", size=512, records={b"size": b"0"}) + new_entry(b"b") + END
    assert [entry.path for entry, _ in read(data)] == [b"a", b"b"]
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        assert opened.getnames() == ["a", "b"]


def test_a_header_for_all_files_is_refused() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", pax_headers={"path": "elsewhere"}):
        pass
    with pytest.raises(ValueError, match="for all files"):
        read(out.getvalue())


@pytest.mark.parametrize("kind", [b"S", b"D", b"M", b"V", b"Z"])
def test_kinds_that_only_gnu_knows_are_refused(kind: bytes) -> None:
    with pytest.raises(ValueError, match="an entry of the kind"):
        read(new_entry(b"a", kind) + END)


def test_a_directory_has_no_content() -> None:
    """Its size would be that of the next headers."""
    data = new_entry(b"d/", b"5", size=512) + new_entry(b"a", size=1) + b"1".ljust(512, b"\0") + END
    assert [(entry.path, content) for entry, content in read(data)] == [(b"d", b""), (b"a", b"1")]


@pytest.mark.parametrize("step", [1, 7, 512, 513])
def test_a_source_that_gives_little_at_a_time(step: int) -> None:
    data = made({"a" * 150: b"1" * 1300, "b": b""}, tarfile.PAX_FORMAT)
    reader = TarReader(Bytes(data, step))
    assert [(entry.name, joined(reader.content())) for entry in reader] == [
        (b"a" * 150, b"1" * 1300), (b"b", b""),
    ]  # fmt: skip
