"""Images of CRIU that a pod gets others of, or that say what a container uses."""

from __future__ import annotations

import pytest

from agent.host.launcher import wire
from agent.restore.hostname import is_hostname_image, renamed
from agent.restore.sysv import is_attached

# As CRIU 4.2 wrote it in a container called `web`.
UTSNS = b"\x19CVT\x032GT\r\x00\x00\x00\n\x03web\x12\x06(none)"


def test_another_name() -> None:
    image = renamed(UTSNS, "web-1")
    assert image == b"\x19CVT\x032GT\x0f\x00\x00\x00\n\x05web-1\x12\x06(none)"
    assert renamed(image, "web") == UTSNS
    assert is_hostname_image("utsns-12.img")
    assert not is_hostname_image("ipcns-var-12.img")


@pytest.mark.parametrize("image", [b"", UTSNS[:10], UTSNS[:-1], UTSNS + b"x", UTSNS[:12] + b"\xff"])
def test_what_holds_no_name(image: bytes) -> None:
    with pytest.raises(ValueError, match=r"image|malformed"):
        renamed(image, "web")


def _space(*statuses: int) -> bytes:
    vmas = (wire.text(14, wire.number(1, 4096) + wire.number(7, each)) for each in statuses)
    message = wire.number(1, 0x400000) + b"".join(vmas) + wire.number(15, 1)
    return b"\x19CVT\x10W\x49W" + len(message).to_bytes(4, "little") + message


def test_who_uses_system_v() -> None:
    regular, heap, system_v = 1 << 0, 1 << 5, 1 << 10
    assert is_attached(_space(regular, regular | system_v))
    assert not is_attached(_space(regular, regular | heap))
    assert not is_attached(_space())


def test_what_is_no_address_space() -> None:
    with pytest.raises(ValueError, match="malformed"):
        is_attached(_space(1)[:-3])
