"""Network namespaces with addresses, a wire between two of them, and clients at its other end."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import socket
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.reports import wait_until
from bench.runc import RuncRoot
from tests.waiting import eventually

_CLONE_NEWNET = 0x40000000

# Of what a Stream sends: a prime, so that no power of two is a multiple, and a byte that is lost
# or doubled anywhere shifts all that follow.
_PERIOD = 251 * 257


@contextlib.contextmanager
def own_network() -> Iterator[Path]:
    """A namespace with nothing but its loopback, which is up; it is gone at exit. Needs root."""
    with subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE) as inside:
        path, ours = Path(f"/proc/{inside.pid}/ns/net"), Path("/proc/self/ns/net")
        try:
            eventually(lambda: not path.samefile(ours), "a network of its own")
            in_network(path, "ip", "link", "set", "lo", "up")
            yield path
        finally:
            inside.communicate()


def wire(runc: RuncRoot, *addresses: str, outside: Path | None = None) -> tuple[Path, Path]:
    """A new namespace with these addresses ("10.1.0.2/24"), and one beyond, joined by a wire.

    Args:
        outside: the one beyond, when there is one already.
    """
    inside = runc.network()
    beyond = outside or runc.network()
    near, far = (f"v{uuid.uuid4().hex[:10]}" for _ in range(2))
    in_network(inside, "ip", "link", "add", near, "type", "veth", "peer", far, "netns", str(beyond))
    for network, device in ((inside, near), (beyond, far)):
        in_network(network, "ip", "link", "set", device, "up")
    for address in addresses:
        add_address(inside, near, address)
    return inside, beyond


def add_address(network: Path, device: str, address: str) -> None:
    """Give a device an address that can be used at once."""
    in_network(network, "ip", "address", "add", address, "dev", device,
               *(["nodad"] if ":" in address else []))  # fmt: skip


def devices(network: Path) -> list[str]:
    """The ends of wires in a namespace, in the order they were made."""
    listed = in_network(network, "ip", "-o", "link", "show", "type", "veth")
    return [line.split()[1].partition("@")[0] for line in listed.splitlines()]


def in_network(network: Path, *words: str) -> str:
    """Run a command in a namespace and return what it prints."""
    argv = ["nsenter", f"--net={network}", *words]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=True)  # fmt: skip
    return done.stdout


def filter_rules(network: Path) -> list[str]:
    """What the namespace lets pass or not, beyond its policies."""
    listed = [in_network(network, program, "-S") for program in ("iptables", "ip6tables")]
    return [line for text in listed for line in text.splitlines() if not line.startswith("-P")]


def socket_in(
    network: Path, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, protocol: int = 0
) -> socket.socket:
    """A socket that belongs to another network namespace: it does wherever it is made."""
    made: list[socket.socket] = []

    def make() -> None:
        descriptor = os.open(network, os.O_RDONLY)
        try:
            # For this thread alone, which ends with it.
            if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(descriptor)
        made.append(socket.socket(family, kind, protocol))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]


def connect(network: Path, address: str, port: int) -> socket.socket:
    """A connection from a namespace. Raises OSError."""
    made = socket_in(network, socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        # Seconds. A checkpoint holds a connection up for less than one.
        made.settimeout(40)
        made.connect((address, port))
    except OSError:
        made.close()
        raise
    return made


def echoed(connection: socket.socket, data: bytes) -> bytes:
    """What a server that returns every byte returns for these. Raises OSError."""
    connection.sendall(data)
    back = b""
    while len(back) < len(data):
        part = connection.recv(len(data) - len(back))
        if not part:
            raise ConnectionError("the other side has closed the connection")
        back += part
    return back


class Stream:
    """Bytes sent without a pause to a server that returns them, and compared one by one.

    Attributes:
        failure: what ended it: a reset, the end of the connection, or a byte that is not the one
            that is due.
    """

    def __init__(self, network: Path, address: str, port: int) -> None:
        self.sent = self.returned = 0
        self.failure: Exception | None = None
        self._socket = connect(network, address, port)
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._guarded, args=[work], daemon=True)
                         for work in (self._send, self._compare)]  # fmt: skip
        pattern = (number * 7 + number // 256 * 13 & 0xFF for number in itertools.count())
        self._pattern = bytes(itertools.islice(pattern, _PERIOD)) * 2

    def __enter__(self) -> Stream:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Cut it off, whatever is still on its way."""
        self._over.set()
        with contextlib.suppress(OSError):  # it is cut off already
            self._socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._socket.close()

    def goes_on(self, least: int = 1 << 18) -> None:
        """Wait until so many more bytes have gone there and come back, all of them right.

        Raises what went wrong instead.
        """
        wanted = self.sent + least
        wait_until(lambda: self.returned >= wanted or self.failure is not None, "bytes returning")
        if self.failure is not None:
            raise self.failure

    def ended(self) -> Exception:
        """What has ended it, as soon as something has."""
        wait_until(lambda: self.failure is not None, "the connection ending")
        assert self.failure is not None
        return self.failure

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (OSError, AssertionError) as error:
            if not self._over.is_set():
                self.failure = self.failure or error

    def _send(self) -> None:
        while not self._over.is_set():
            at = self.sent % _PERIOD
            self.sent += self._socket.send(memoryview(self._pattern)[at : at + (16 << 10)])

    def _compare(self) -> None:
        while not self._over.is_set():
            got = self._socket.recv(32 << 10)
            if not got:
                raise ConnectionError("the other side has closed the connection")
            at = self.returned % _PERIOD
            due = self._pattern[at : at + len(got)]
            assert got == due, f"other bytes than were sent, beyond {self.returned}"
            self.returned += len(got)
