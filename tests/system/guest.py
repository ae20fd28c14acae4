"""One virtual machine: started, told what to run, reset, and always ended.

Commands are started by qemu-guest-agent and write to a console of their own, a file on this side,
where their output can be followed; a mark behind it says that they have ended, and how.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

Json = dict[str, Any]

# Seconds. Without KVM a boot takes about 40 on two idle cores, and much longer on busy ones.
BOOT_SECONDS = 900.0
# A kernel under a KVM that works says its first word within one second.
FIRST_WORD_SECONDS = 15.0
ANSWER_SECONDS = 5.0

MEMORY_MIB = 3072
# A getty on a console takes away what is written to it.
_KERNEL = (
    "root=/dev/vda rw console=ttyS0 quiet psi=1 mitigations=off net.ifnames=0"
    " systemd.hostname=node-1 systemd.show_status=0"
    " systemd.mask=serial-getty@ttyS0.service systemd.mask=serial-getty@hvc0.service"
)


class GuestFailed(Exception):
    """The machine does not start, has ended or does not answer; what it said is in its console."""


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended."""

    status: int
    output: str


class Guest:
    """A machine on the image, whose changes go when it ends.

    Args:
        directory: for its sockets and logs; a short one (a socket's path has at most 107 bytes).
        image: what deploy/system-image.sh has built.
        payload: a second disk, which it may only read.
    """

    def __init__(self, directory: Path, image: Path, payload: Path) -> None:
        self.directory = directory
        self.accelerator = "tcg"
        self._image, self._payload = image, payload
        self._process: subprocess.Popen[bytes] | None = None
        self._read = 0

    @property
    def console(self) -> Path:
        """What its kernel says."""
        return self.directory / "console.log"

    @property
    def _output(self) -> Path:
        return self.directory / "output.log"

    def __enter__(self) -> Self:
        if os.access("/dev/kvm", os.R_OK | os.W_OK):
            self._start("kvm")
            # A KVM inside of a virtual machine may be there and not work.
            if self._speaks():
                self.accelerator = "kvm"
                return self
            self._end()
        # One processor: on two emulated ones Linux was seen to panic while it patched its own code
        # (static keys), which CRIU's hardware breakpoints bring about.
        self._start("tcg")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._end()

    def _start(self, accelerator: str) -> None:
        with (self.directory / "qemu.log").open("ab") as log:
            self._process = subprocess.Popen(
                # A test run that is killed takes it with it.
                ["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", *self._words(accelerator)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def _words(self, accelerator: str) -> list[str]:
        disk = "if=none,format=raw,file"
        return [
            "-accel", accelerator, "-cpu", "max", "-smp", "2" if accelerator == "kvm" else "1",
            "-m", str(MEMORY_MIB),
            "-nodefaults", "-no-user-config", "-display", "none", "-nic", "none",
            "-kernel", str(self._image / "vmlinuz"), "-initrd", str(self._image / "initrd"),
            "-append", _KERNEL,
            "-drive", f"{disk}={self._image / 'root.img'},id=root,snapshot=on,cache=unsafe",
            "-device", "virtio-blk-pci,drive=root",
            "-drive", f"{disk}={self._payload},id=payload,readonly=on",
            "-device", "virtio-blk-pci,drive=payload",
            "-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
            "-serial", f"file:{self.console}",
            "-chardev", f"file,id=output,path={self._output}",
            "-device", "virtconsole,chardev=output",
            "-chardev", f"socket,id=agent,path={self.directory / 'agent'},server=on,wait=off",
            "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
            "-qmp", f"unix:{self.directory / 'qmp'},server=on,wait=off",
        ]  # fmt: skip

    def _speaks(self) -> bool:
        deadline = time.monotonic() + FIRST_WORD_SECONDS
        while time.monotonic() < deadline and self._is_alive():
            if self.console.exists() and self.console.stat().st_size > 0:
                return True
            time.sleep(0.1)
        return False

    def _is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def wait_up(self, after: str = "", limit: float = BOOT_SECONDS) -> str:
        """Wait until it has booted, and not the boot of this id; the id of the boot it is in.

        Raises:
            GuestFailed: it has not in time.
        """
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            with suppress(TimeoutError, OSError):
                boot = self._boot_id()
                if boot != after:
                    # `degraded` is an end of booting as well; tests look at what failed.
                    self.run("systemctl is-system-running --wait || true", limit=limit)
                    return boot
            if not self._is_alive():
                raise GuestFailed(f"qemu ended: {(self.directory / 'qemu.log').read_text()}")
            time.sleep(1)
        raise GuestFailed(f"it has not booted within {limit:.0f} s")

    def _boot_id(self) -> str:
        handle = self._ask("guest-file-open", path="/proc/sys/kernel/random/boot_id")
        try:
            return str(self._ask("guest-file-read", handle=handle)["buf-b64"])
        finally:
            self._ask("guest-file-close", handle=handle)

    def run(
        self, command: str, *, limit: float, show: Callable[[str], None] = lambda line: None
    ) -> Done:
        """Run a command of bash's, in the checkout once that is there, with both outputs as one.

        Args:
            limit: seconds.
            show: is given each line as it comes.

        Raises:
            GuestFailed: it has not ended in time, or the machine has ended.
        """
        mark = f"--- {secrets.token_hex(8)}"
        script = (
            f"cd /root/checkpoint-agent 2>/dev/null\nexport HOME=/root LC_ALL=C.UTF-8\n"
            f"( {command}\n) </dev/null >/dev/hvc0 2>&1\n"
            f"printf '\\n{mark} %s\\n' $? >/dev/hvc0\n"
        )
        self._ask("guest-exec", path="/bin/bash", arg=["-c", script])
        lines: list[str] = []
        for line in self._follow(time.monotonic() + limit):
            if line.startswith(mark):
                return Done(int(line.split()[-1]), "\n".join(lines).removesuffix("\n"))
            lines.append(line)
            show(line)
        raise GuestFailed(f"not within {limit:.0f} s: {command}\n" + "\n".join(lines[-50:]))

    def _follow(self, deadline: float) -> Iterator[str]:
        """Lines of output as they come, until the deadline."""
        rest = b""
        with self._output.open("rb") as output:
            output.seek(self._read)
            while time.monotonic() < deadline and self._is_alive():
                data = output.read()
                if not data:
                    time.sleep(0.1)
                    continue
                *whole, rest = (rest + data).split(b"\n")
                for line in whole:
                    self._read += len(line) + 1
                    yield line.decode(errors="replace").rstrip("\r")

    def _ask(self, name: str, **arguments: object) -> Any:  # noqa: ANN401 - as in its JSON
        """Have its agent do something. Raises TimeoutError or OSError when it does not answer."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_SECONDS)
            connection.connect(str(self.directory / "agent"))
            answers = connection.makefile("rb")
            number = secrets.randbits(31)
            _send(connection, "guest-sync", {"id": number})
            # Before it there may be answers to what another connection asked before a reset.
            while _answer(answers.readline()) != number:
                pass
            connection.settimeout(ANSWER_SECONDS * 6)
            _send(connection, name, arguments)
            return _answer(answers.readline())

    def reset(self) -> None:
        """As the button does it: no warning, nothing is written to its disk any more."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(60)
            monitor.connect(str(self.directory / "qmp"))
            answers = monitor.makefile("rb")
            answers.readline()  # its greeting
            for name in ("qmp_capabilities", "system_reset"):
                _send(monitor, name, {})
                while b'"return"' not in answers.readline():
                    pass


def _send(connection: socket.socket, name: str, arguments: Json) -> None:
    request = {"execute": name, "arguments": arguments}
    connection.sendall(json.dumps(request).encode() + b"\n")


def _answer(line: bytes) -> Any:  # noqa: ANN401 - as in its JSON
    """What an answer of the agent's says. Raises OSError when it is an error, or no answer."""
    try:
        answer: Json = json.loads(line)
    except ValueError:
        raise OSError(f"no answer: {line!r}") from None
    if "error" in answer:
        raise OSError(str(answer["error"]))
    return answer.get("return")
