"""CRIU: its stand-in for runc, its command line for process trees, its logs and figures."""

from __future__ import annotations

import os
import shlex
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.config import Tools
from agent.host.launcher.wire import fields
from agent.manifest import Options

_PACKAGE_PARENT = Path(__file__).resolve().parent.parent.parent

# CRIU's highest level of logging, and runc's and ours unless told otherwise.
EVERYTHING = 4

# -I and -S: no site-packages, no environment; halves the interpreter's start to 10 ms.
_LAUNCHER = """#!{python} -IS
import sys
sys.path.insert(0, {package!r})
from agent.host.launcher.main import main
main({criu!r}, {script!r}, {extra!r}, {config!r})
"""

# dash starts in 1 ms.
_GATE = """#!/bin/sh
[ -e {awaited} ] && exec {launcher} "$@"
CRIU_CONFIG_FILE={config} exec {criu} "$@"
"""


def install_launcher(
    directory: Path, tools: Tools, extra: Sequence[str] = (), *, awaited: Path | None = None
) -> Path:
    """Write a ``criu`` into ``directory`` that streams when asked to; returns its path.

    Args:
        extra: options for CRIU that runc cannot be told, see :func:`unknown_to_runc`. CRIU also
            gets them where it does not stream.
        awaited: a file without which nothing is streamed, so that Python need not be started to
            find that out. runc writes descriptors.json after it has asked for CRIU's version and
            before it asks for the dump.
    """
    directory.mkdir(mode=0o700)
    launcher = directory / ("criu" if awaited is None else "launcher")
    config = directory / "criu.conf"
    config.write_text(_configuration(extra))
    text = _LAUNCHER.format(
        python=sys.executable,
        package=str(_PACKAGE_PARENT),
        criu=str(tools.criu),
        script=str(directory / "hook"),
        extra=list(extra),
        config=str(config),
    )
    _write_program(launcher, text)
    if awaited is not None:
        words = {"awaited": awaited, "launcher": launcher, "config": config}
        words["criu"] = tools.criu
        quoted = {name: shlex.quote(str(word)) for name, word in words.items()}
        _write_program(directory / "criu", _GATE.format(**quoted))
    return directory / "criu"


def _configuration(words: Sequence[str]) -> str:
    """Options of a command line as a configuration file of CRIU: one a line, values in quotes."""
    lines: list[str] = []
    for word in words:
        if word.startswith("--"):
            lines.append(word.removeprefix("--"))
        else:
            lines[-1] += ' "{}"'.format(word.replace('"', '\\"'))
    return "".join(f"{line}\n" for line in lines)


def _write_program(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700), "w") as file:
        file.write(text)


def launcher_environment(directory: Path) -> dict[str, str]:
    """What makes runc start the launcher in ``directory`` for every `criu`."""
    return {"PATH": f"{directory}:{os.environ.get('PATH', os.defpath)}"}


def unknown_to_runc(options: Options) -> list[str]:
    """Options that not every runc has a flag for (`--link-remap` came in 2025), in CRIU's words."""
    flags = {
        "--tcp-close": options.tcp_close,
        "--link-remap": options.link_remap,
        "--skip-in-flight": options.tcp_skip_in_flight,
        f"--ghost-limit={options.ghost_limit}": options.ghost_limit is not None,
        # The last one counts; runc always asks for everything.
        f"--verbosity={options.log_level}": options.log_level != EVERYTHING,
    }
    return [flag for flag, wanted in flags.items() if wanted]


def dump_arguments(pid: int, options: Options, *, work_dir: Path, leave_running: bool) -> list[str]:
    """CRIU's command line to dump a process tree, without images and streaming."""
    words = ["dump", "--tree", str(pid), *_common(options, work_dir, "dump.log")]
    if leave_running:
        words.append("--leave-running")
    return words


def restore_arguments(options: Options, *, work_dir: Path, pid_file: Path) -> list[str]:
    """CRIU's command line to restore a process tree, without images and streaming."""
    return [
        "restore",
        "--restore-detached",
        *("--pidfile", str(pid_file)),
        *_common(options, work_dir, "restore.log"),
    ]


def _common(options: Options, work_dir: Path, log: str) -> list[str]:
    flags = {
        "--tcp-established": options.tcp_established,
        "--ext-unix-sk": options.ext_unix_sk,
        "--shell-job": options.shell_job,
        "--file-locks": options.file_locks,
    }
    words = ["--work-dir", str(work_dir), "--log-file", log, f"--verbosity={EVERYTHING}"]
    return words + [flag for flag, wanted in flags.items() if wanted] + unknown_to_runc(options)


def log_tail(log: Path) -> str:
    """The last twelve lines that CRIU complained in; of all its lines when it did not complain."""
    try:
        everything = log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    errors = [line for line in everything if "Error (" in line]
    return "\n".join((errors or everything)[-12:])


def has_unlocked(log: Path) -> bool:
    """Whether a dump that succeeded has opened the network again. Blocks.

    When an iptables fails it says so in its log, and succeeds all the same. What else it has
    complained about counts where it was not to log that it opens it.
    """
    try:
        end = log.read_text(errors="replace").rpartition("Unlock network")[2]
    except OSError:
        return True  # no dump, and so no lock
    return "Error (" not in end


_CONNECTED = (
    "it has open TCP connections: pass --tcp-established to keep them, or --tcp close to give"
    " them up"
)

# What CRIU says, and what to do about it.
_ADVICE = {
    "skip-in-flight": "a connection waits to be accepted: pass --tcp skip-in-flight",
    "tcp-established": _CONNECTED,
    "Connected TCP socket": _CONNECTED,
    "Can't bind inet socket back": "its connections had another address: restore with --tcp close",
    "Can't bind inet socket": "a socket is bound to an address that is not there",
    "--shell-job": "it belongs to a terminal's session: pass --shell-job",
    "--ext-unix-sk": "a unix socket's other end is outside: pass --ext-unix-sk",
    "half of stream unix": "it is connected over a unix socket to what is not dumped with it",
    "--file-locks": "it holds file locks: pass --file-locks",
    "link-remap": "it has a deleted file open that is still linked elsewhere: pass --link-remap",
    "Can't lookup mount": "it has a file open that lies outside its root filesystem",
    "have a proper root mount": "its configuration does not name all that is mounted in it",
    "No mapping for": "its new configuration does not mount all that it had mounted",
    "io_uring": "it uses io_uring, which CRIU cannot checkpoint",
    "Can't get rlimit": "it does not run as root, for which CRIU needs CAP_SYS_RESOURCE",
    "Can't find pid": "one of its process ids is taken on this machine",
    "already exists": "a process or file of that id exists already",
}


def advice(log: str) -> str:
    """What a log's complaints mean for a user, "" when nobody knows."""
    return next((meaning for words, meaning in _ADVICE.items() if words in log), "")


@dataclass(frozen=True, slots=True)
class DumpStats:
    """CRIU's own figures of a dump, in seconds."""

    freezing: float
    frozen: float


def read_dump_stats(image: bytes) -> DumpStats:
    """Figures from a ``stats-dump`` image: two magic numbers, a length, a message in microseconds.

    (images/stats.proto: field 1 dump; there 1 freezing_time, 2 frozen_time.) Raises ValueError for
    anything else.
    """
    if len(image) < 12:
        raise ValueError("stats-dump is too short")
    (length,) = struct.unpack_from("=I", image, 8)
    dump = dict(fields(image[12 : 12 + length])).get(1, b"")
    figures = dict(fields(dump)) if isinstance(dump, bytes) else {}
    seconds = [int(figures.get(number, 0)) / 1e6 for number in (1, 2)]
    return DumpStats(*seconds)
