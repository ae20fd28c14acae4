"""Manifests: what is written comes back, and nothing that others wrote is believed."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from agent.errors import CheckpointCorrupt, FormatTooNew
from agent.frame import MAX_CHUNK, Codec, digest
from agent.manifest import (
    FORMAT_VERSION,
    Chunk,
    Host,
    Image,
    Manifest,
    Member,
    Options,
    Piece,
    Stream,
    from_bytes,
    to_bytes,
)

PATH = "file:///store/it"
IMAGES = [
    Image(name="pages-1.img", kind="criu", size=300, pieces=[Piece(0, 0, 200), Piece(1, 0, 100)]),
    Image(name="descriptors.json", kind="runc", size=50, pieces=[Piece(2, 0, 50)]),
    Image(name="empty.img", kind="criu", size=0, pieces=[]),
]
MANIFEST = Manifest(
    checkpoint_id="it",
    name="a name: ünïcode ☃ \n",
    created_at="2025-01-02T03:04:05.678+00:00",
    agent_version="0.1.0",
    host=Host(name="here", kernel="6.1", architecture="x86_64", criu="4.1.1", runc=None),
    codec="zstd:1",
    streamed=False,
    fallback_reason="tls",
    frozen_seconds=0.25,
    phases={"dump": 0.5, "unaccounted": 0.0},
    members=[
        Member(
            name="web",
            kind="runc",
            target="web",
            pid=4711,
            bundle="/bundles/web",
            runc_root="/run/runc",
            options=Options(tcp_established=True, manage_cgroups_mode="full"),
            images=IMAGES,
        ),
        Member(name="12", kind="process", target="12", pid=12, images=[IMAGES[0]]),
    ],
    streams=[
        Stream(path="stream-000", bytes=1000, frames=2),
        Stream(path="stream-001", bytes=64, frames=0),
    ],
    chunks=[
        Chunk(0, 32, 150, 200, Codec.ZSTD, "00" * 16),
        Chunk(0, 222, 100, 100, Codec.NONE, "ab" * 16),
        Chunk(0, 400, 600, MAX_CHUNK, Codec.LZ4, "ff" * 16),
    ],
)


def test_a_manifest_comes_back() -> None:
    assert from_bytes(to_bytes(MANIFEST), PATH) == MANIFEST


def test_it_is_two_lines_that_any_tool_can_read() -> None:
    first, second, rest = to_bytes(MANIFEST).split(b"\n")

    assert rest == b""
    body = second + b"\n"
    assert json.loads(first) == {"format": 1, "bytes": len(body), "xxh3_128": digest(body).hex()}
    assert json.loads(second)["chunks"][0] == [0, 32, 150, 200, 2, "00" * 16]
    assert json.loads(second)["members"][0]["images"][0]["pieces"] == [[0, 0, 200], [1, 0, 100]]


def test_sums_and_look_up() -> None:
    assert MANIFEST.bytes_raw == 300 + 50 + 300
    assert MANIFEST.bytes_stored == 1064
    assert MANIFEST.members[0].image("descriptors.json") == IMAGES[1]
    assert MANIFEST.members[0].image("core-1.img") is None


def envelope(body: bytes, **changes: object) -> bytes:
    """A body behind an envelope that fits it, but for the changes."""
    first = {"format": FORMAT_VERSION, "bytes": len(body), "xxh3_128": digest(body).hex()}
    return json.dumps(first | changes).encode() + b"\n" + body


BODY = to_bytes(MANIFEST).partition(b"\n")[2]
HEARTBEAT = MANIFEST.model_copy(update={"reason": "heartbeat"})


def test_only_what_an_older_agent_cannot_read_is_of_a_newer_format() -> None:
    first, second, _ = to_bytes(MANIFEST).split(b"\n")
    assert (json.loads(first)["format"], "reason" in json.loads(second)) == (1, False)
    first, second, _ = to_bytes(HEARTBEAT).split(b"\n")
    assert (json.loads(first)["format"], json.loads(second)["reason"]) == (2, "heartbeat")
    assert from_bytes(to_bytes(HEARTBEAT), PATH) == HEARTBEAT


def test_a_field_is_refused_in_a_format_that_did_not_have_it() -> None:
    body = to_bytes(HEARTBEAT).partition(b"\n")[2]
    with pytest.raises(CheckpointCorrupt, match="no field `reason`"):
        from_bytes(envelope(body, format=1), PATH)
    assert from_bytes(envelope(body, format=2), PATH) == HEARTBEAT


def test_the_test_s_own_envelope_is_right() -> None:
    assert from_bytes(envelope(BODY), PATH) == MANIFEST


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 1 << 70])
def test_a_newer_format_is_refused_before_anything_else_is_looked_at(version: int) -> None:
    with pytest.raises(FormatTooNew) as caught:
        from_bytes(envelope(b"what the future may bring", format=version, bytes=0), PATH)

    assert (caught.value.path, caught.value.version) == (PATH, version)


@pytest.mark.parametrize("version", [0, -1, False])
def test_formats_that_never_were(version: int) -> None:
    with pytest.raises(CheckpointCorrupt, match="there is no format"):
        from_bytes(envelope(BODY, format=version), PATH)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\n", id="empty-lines"),
        pytest.param(b"\0" * 100, id="zeros"),
        pytest.param(b"\xff\xfe\n{}", id="no-unicode"),
        pytest.param(BODY, id="no-envelope"),
        pytest.param(b"[1]\n" + BODY, id="list"),
        pytest.param(b'"text"\n' + BODY, id="string"),
        pytest.param(b"7\n" + BODY, id="number"),
        pytest.param(b"null\n" + BODY, id="null"),
        pytest.param(b"{}\n" + BODY, id="no-fields"),
        pytest.param(b'{"format": 1}\n' + BODY, id="format-only"),
        pytest.param(envelope(BODY, format="new"), id="word-as-format"),
        pytest.param(envelope(BODY, format=None), id="null-as-format"),
        pytest.param(b'{"format": 1e999}\n' + BODY, id="infinite-format"),
        pytest.param(b'{"format": NaN}\n' + BODY, id="nan-as-format"),
        pytest.param(b'{"format": ' + b"9" * 5000 + b"}\n" + BODY, id="5000-digits"),
        pytest.param(b"[" * 200_000 + b"\n" + BODY, id="deeply-nested"),
    ],
)
def test_a_bad_envelope_is_damage(data: bytes) -> None:
    with pytest.raises(CheckpointCorrupt, match="no valid envelope") as caught:
        from_bytes(data, PATH)

    assert caught.value.path == PATH


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(envelope(BODY, bytes=len(BODY) + 1), id="longer"),
        pytest.param(envelope(BODY, bytes=-1), id="negative"),
        pytest.param(envelope(BODY, xxh3_128="0" * 32), id="another-digest"),
        pytest.param(envelope(BODY, xxh3_128=""), id="no-digest"),
        pytest.param(envelope(BODY)[:-1], id="a-byte-short"),
        pytest.param(envelope(BODY) + b"\n", id="a-byte-long"),
        pytest.param(envelope(BODY).replace(b"pages-1", b"pages-2"), id="changed"),
        pytest.param(envelope(b"").rstrip(b"\n"), id="envelope-alone"),
    ],
)
def test_a_body_that_is_not_what_was_written_is_damage(data: bytes) -> None:
    with pytest.raises(CheckpointCorrupt, match="does not match its checksum"):
        from_bytes(data, PATH)


Change = Callable[[Any], object]


def assign(path: str, value: object) -> Change:
    """Set the value at a dotted path; numbers are places in lists."""

    def change(document: Any) -> None:  # noqa: ANN401 - whatever the JSON holds
        *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        for part in way:
            document = document[part]
        document[last] = value

    return change


HOSTILE: dict[str, Change] = {
    "id with a slash": assign("checkpoint_id", "../it"),
    "id with a newline": assign("checkpoint_id", "it\n"),
    "id that hides": assign("checkpoint_id", ".it"),
    "id too long": assign("checkpoint_id", "a" * 129),
    "image with a slash": assign("members.0.images.0.name", "../../etc/passwd"),
    "image that is a parent": assign("members.0.images.0.name", ".."),
    "image with a newline": assign("members.0.images.0.name", "pages-1.img\n"),
    "image with a zero": assign("members.0.images.0.name", "a\0b"),
    "image without a name": assign("members.0.images.0.name", ""),
    "image of no kind": assign("members.0.images.0.kind", "other"),
    "image of negative size": assign("members.0.images.2.size", -1),
    "stream with a slash": assign("streams.0.path", "../stream-000"),
    "stream of another name": assign("streams.0.path", "manifest.json"),
    "stream of negative size": assign("streams.1.bytes", -1),
    "no streams": assign("streams", []),
    "65 streams": assign("streams", [{"path": "stream-000", "bytes": 1000, "frames": 2}] * 65),
    "no members": assign("members", []),
    "pid zero": assign("members.0.pid", 0),
    "an unknown kind of member": assign("members.0.kind", "pod"),
    "unknown cgroups mode": assign("members.0.options.manage_cgroups_mode", "none"),
    "chunk in no stream": assign("chunks.0.0", 2),
    "chunk in stream 64": assign("chunks.0.0", 64),
    "chunk before its stream": assign("chunks.0.1", -1),
    "chunk behind its stream": assign("chunks.2.1", 401),
    "chunk at the end of the world": assign("chunks.2.1", 1 << 63),
    "chunk too long": assign("chunks.2.3", MAX_CHUNK + 1),
    "chunk of nothing": assign("chunks.0.3", 0),
    "chunk stored too long": assign("chunks.0.2", MAX_CHUNK + 1),
    "chunk of another codec": assign("chunks.0.4", 3),
    "digest too short": assign("chunks.0.5", "00" * 15),
    "digest that is none": assign("chunks.0.5", "zz" * 16),
    "chunk with a part too many": lambda document: document["chunks"][0].append(1),
    "chunk with a part missing": lambda document: document["chunks"][0].pop(),
    "piece of no chunk": assign("members.0.images.0.pieces.0.0", 3),
    "piece of a negative chunk": assign("members.0.images.0.pieces.0.0", -1),
    "piece behind its chunk": assign("members.0.images.0.pieces.1.1", 1),
    "piece longer than its chunk": assign("members.0.images.0.pieces.1.2", 101),
    "piece of nothing": assign("members.0.images.0.pieces.1.2", 0),
    "pieces that are not the image": assign("members.0.images.0.size", 299),
    "frozen for a negative time": assign("frozen_seconds", -0.1),
    "frozen for ever": assign("frozen_seconds", float("inf")),
    "frozen for no number": assign("frozen_seconds", float("nan")),
    "a phase of negative time": assign("phases.dump", -1),
    "an unknown field": assign("extra", 1),
    "an unknown field of a member": assign("members.0.extra", 1),
    "an unknown option": assign("members.0.options.extra", True),
    "a field missing": lambda document: document.pop("host"),
    "null for a list": assign("chunks", None),
    "a list for text": assign("codec", []),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_values_behind_a_right_checksum(change: Change) -> None:
    document = copy.deepcopy(json.loads(BODY))
    change(document)
    body = json.dumps(document).encode() + b"\n"

    with pytest.raises(CheckpointCorrupt, match="invalid manifest"):
        from_bytes(envelope(body), PATH)


@pytest.mark.parametrize("body", [b"[]", b"null", b"{", b"", b"[" * 200_000, b"\xff"])
def test_a_body_that_is_no_manifest(body: bytes) -> None:
    with pytest.raises(CheckpointCorrupt, match="invalid manifest"):
        from_bytes(envelope(body), PATH)


def test_a_manifest_with_wrong_references_is_not_even_made() -> None:
    wrong = Image(name="pages-1.img", kind="criu", size=1, pieces=[Piece(9, 0, 1)])
    member = MANIFEST.members[0].model_copy(update={"images": [wrong]})

    with pytest.raises(ValueError, match="chunk 9, which does not exist"):
        Manifest(**dict(MANIFEST) | {"members": [member]})
