"""A system bus with a logind on it, as far as a shutdown of the machine is concerned.

The bus is a real dbus-daemon, and the agent listens with the real busctl. logind is a client that
owns its name and announces shutdowns; `systemd-inhibit` is a program that is there as long as the
lock is held.
"""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.waiting import eventually

AVAILABLE = all(shutil.which(program) for program in ("busctl", "dbus-daemon"))

_CONFIG = """<busconfig>
<listen>unix:path={socket}</listen><auth>EXTERNAL</auth>
<policy context="default">
<allow send_destination="*" eavesdrop="true"/><allow receive_sender="*" eavesdrop="true"/>
<allow own="*"/><allow user="*"/>
</policy></busconfig>"""

_BUSCTL = '#!/bin/sh\nDBUS_SYSTEM_BUS_ADDRESS=unix:path={socket} exec {busctl} "$@"\n'
_INHIBIT = (
    '#!/bin/sh\n[ -e {refused} ] && exit 1\necho "$@" >{asked}\necho $$ >{pid}\nexec sleep 1000\n'
)

_NAME, _PATH = "org.freedesktop.login1", "/org/freedesktop/login1"
_CALL, _SIGNAL = 1, 4


@dataclass
class Logind:
    """``programs`` go to the front of PATH."""

    directory: Path
    _connection: socket.socket
    _serial: int = 0

    @property
    def programs(self) -> Path:
        """Where busctl and systemd-inhibit are."""
        return self.directory / "bin"

    def announce(self, begins: bool) -> None:
        """A shutdown begins, or is called off."""
        manager = f"{_NAME}.Manager"
        self._send(_SIGNAL, _PATH, manager, "PrepareForShutdown", "b", struct.pack("<I", begins))

    def is_locked(self) -> bool:
        """Whether somebody holds up shutdowns."""
        try:
            pid = (self.directory / "pid").read_text().strip()
            return "sleep" in Path("/proc", pid, "cmdline").read_text()
        except OSError:
            return False

    def asked(self) -> str:
        """The words after `systemd-inhibit`."""
        return (self.directory / "asked").read_text()

    def refuse(self) -> None:
        """Give no locks any more."""
        (self.directory / "refused").touch()

    def begin(self) -> None:
        """Be on the bus under logind's name."""
        self._connection.sendall(b"\0AUTH EXTERNAL 30\r\n")
        assert self._connection.recv(1000).startswith(b"OK")
        self._connection.sendall(b"BEGIN\r\n")
        bus = "org.freedesktop.DBus"
        self._send(_CALL, "/org/freedesktop/DBus", bus, "Hello", to=bus)
        body = _text(_NAME)
        body += b"\0" * (-len(body) % 4) + struct.pack("<I", 0)
        self._send(_CALL, "/org/freedesktop/DBus", bus, "RequestName", "su", body, to=bus)

    def _send(
        self, kind: int, path: str, interface: str, member: str,
        signature: str = "", body: bytes = b"", to: str = "",
    ) -> None:  # fmt: skip
        """One message, in the format of the D-Bus specification."""
        self._serial += 1
        fields = [(1, "o", path), (2, "s", interface), (3, "s", member)]
        fields += [(6, "s", to)] if to else []
        fields += [(8, "g", signature)] if signature else []
        packed = b""
        for code, type_, value in fields:
            packed += b"\0" * (-len(packed) % 8) + bytes([code, 1, ord(type_), 0])
            packed += _signature(value) if type_ == "g" else _text(value)
        head = struct.pack("<cBBBII", b"l", kind, 0, 1, len(body), self._serial)
        head += struct.pack("<I", len(packed)) + packed
        self._connection.sendall(head + b"\0" * (-len(head) % 8) + body)


def _text(value: str) -> bytes:
    return struct.pack("<I", len(value)) + value.encode() + b"\0"


def _signature(value: str) -> bytes:
    return bytes([len(value)]) + value.encode() + b"\0"


@contextmanager
def logind_server(directory: Path) -> Iterator[Logind]:
    """One that runs; nothing of it is left at the end.

    Args:
        directory: an existing one; short, for the socket in it.
    """
    place = directory / "bus"
    config = directory / "bus.conf"
    config.write_text(_CONFIG.format(socket=place))
    programs = directory / "bin"
    programs.mkdir()
    words = {
        "busctl": _BUSCTL.format(socket=place, busctl=shutil.which("busctl")),
        "systemd-inhibit": _INHIBIT.format(
            refused=directory / "refused", asked=directory / "asked", pid=directory / "pid"
        ),
    }
    for name, text in words.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    with (
        subprocess.Popen(
            ["dbus-daemon", f"--config-file={config}", "--nofork"], stderr=subprocess.DEVNULL
        ) as bus,
        socket.socket(socket.AF_UNIX) as connection,
    ):
        try:
            eventually(lambda: connection.connect_ex(str(place)) == 0, "the bus")
            made = Logind(directory, connection)
            made.begin()
            yield made
        finally:
            bus.terminate()
