"""CRIU's RPC options as a command line, field by field.

Field numbers and meanings: images/rpc.proto and setup_opts_from_req() of CRIU 4.1. What has no twin
on the command line raises Untranslatable, and the agent then goes the slower way through files.
Nothing is ever dropped silently.
"""

from __future__ import annotations

import os

from agent.host.launcher.wire import DUMP, fields


class Untranslatable(Exception):
    """An option that only CRIU's RPC can express; the message names it."""


# bool fields: number -> (name, option)
_FLAGS = {
    3: "--leave-running",
    4: "--ext-unix-sk",
    5: "--tcp-established",
    6: "--evasive-devices",
    7: "--shell-job",
    8: "--file-locks",
    18: "--link-remap",
    21: "--force-irmap",
    26: "--restore-sibling",
    29: "--enable-external-sharing",
    30: "--enable-external-masters",
    46: "--skip-in-flight",
    47: "--weak-sysctls",
    52: "--tcp-close",
    65: "--mntns-compat-mode",
    66: "--skip-file-rwx-check",
    67: "--unprivileged",
    69: "--leave-stopped",
    70: "--display-stats",
}
# string and number fields whose value follows the option unchanged
_VALUES = {
    2: "--tree",
    10: "--log-file",
    13: "--root",
    31: "--skip-mnt",
    32: "--enable-fs",
    35: "--ghost-limit",
    36: "--irmap-scan-path",
    37: "--external",
    41: "--cgroup-props",
    42: "--cgroup-props-file",
    43: "--cgroup-dump-controller",
    44: "--freeze-cgroup",
    45: "--timeout",
    53: "--lsm-profile",
    60: "--cgroup-yard",
    63: "--lsm-mount-context",
}
# Harmless while off, RPC-only or impossible with --stream when on.
_OFF_ONLY = {
    15: "track_mem",
    16: "auto_dedup",
    28: "auto_ext_mnt",
    48: "lazy_pages",
    58: "tls",
    59: "tls_no_cn_verify",
    71: "log_to_stderr",
}
# With --stream impossible, or nothing that the command line has a word for.
_NO_TWIN = {
    11: "ps",
    14: "parent_img",
    20: "cpu_cap",
    22: "exec_cmd",
    49: "status_fd",
    54: "tls_cacert",
    55: "tls_cacrl",
    56: "tls_cert",
    57: "tls_key",
    61: "pre_dump_mode",
    62: "pidfd_store_sk",
}
# images_dir_fd, work_dir_fd, notify_scripts, images_dir: the launcher's own business.
# orphan_pts_master: runc always sets it; it matters for terminals only, and for those the agent
# does not ask for streaming.
_ELSEWHERE = {1, 12, 17, 50, 68}

_CGROUP_MODES = ("ignore", "none", "props", "soft", "full", "strict", "soft")
_NETWORK_LOCKS = {1: "iptables", 2: "nftables", 3: "skip"}
_CLONE_NEWNET = 0x40000000

_IMAGES_DIR_FD, _NOTIFY_SCRIPTS, _WORK_DIR_FD = 1, 12, 17


class Options:
    """The options of one DUMP or RESTORE request."""

    def __init__(self, message: bytes) -> None:
        self.fields = list(fields(message))

    def directory(self, field: int, process: int) -> str | None:
        """Path of a directory that ``process`` passed as one of its descriptors."""
        for number, value in self.fields:
            if number == field and isinstance(value, int):
                return f"/proc/{process}/fd/{value}"
        return None

    def images_dir(self, process: int) -> str | None:
        """Where images go, as a path that works from here; short, whatever its real name is."""
        return self.directory(_IMAGES_DIR_FD, process)

    def work_dir(self, process: int) -> str | None:
        """Where logs go."""
        return self.directory(_WORK_DIR_FD, process)

    @property
    def wants_hooks(self) -> bool:
        """Whether the one who asks is to be told of CRIU's hooks."""
        return bool(dict(self.fields).get(_NOTIFY_SCRIPTS))

    def arguments(self, kind: int) -> list[str]:
        """The command line for a dump or restore, without directories and hooks.

        Raises:
            Untranslatable: there is no command line that means the same.
        """
        words = ["dump" if kind == DUMP else "restore"]
        modes = {number for number, _ in self.fields}
        for number, value in self.fields:
            # pid is the task to dump; on restore runc does not set it.
            if number in _ELSEWHERE or (number == 24 and 34 in modes):
                continue
            words += _translate(number, value)
        if kind != DUMP:
            # What swrk does by itself: leave the restored tree running.
            words.append("--restore-detached")
        return words


def _translate(number: int, value: int | bytes) -> list[str]:
    if number in _FLAGS:
        return [_FLAGS[number]] if value else []
    if number in _VALUES:
        return [_VALUES[number], _word(value)]
    if number in _OFF_ONLY:
        if value:
            raise Untranslatable(_OFF_ONLY[number])
        return []
    special = _SPECIAL.get(number)
    if special is None:
        raise Untranslatable(_NO_TWIN.get(number, f"option number {number}"))
    return special(value)


def _word(value: int | bytes) -> str:
    return os.fsdecode(value) if isinstance(value, bytes) else str(value)


def _pair(value: int | bytes) -> tuple[str, str, str]:
    """Fields 1, 2 and 3 of a small message as text, "" for what is absent."""
    if isinstance(value, int):
        raise Untranslatable("a number where a message should be")
    parts = {number: _word(part) for number, part in fields(value)}
    return parts.get(1, ""), parts.get(2, ""), parts.get(3, "")


def _log_level(value: int | bytes) -> list[str]:
    return [f"--verbosity={_word(value)}"]


def _external_mount(value: int | bytes) -> list[str]:
    key, source, _ = _pair(value)
    return ["--external", f"mnt[{key}]:{source}"]


def _cgroup_root(value: int | bytes) -> list[str]:
    controller, path, _ = _pair(value)
    if not controller and ":" in path:
        raise Untranslatable(f"cg_root {path}: what is before the colon would be a controller")
    return ["--cgroup-root", f"{controller}:{path}" if controller else path]


def _inherited(value: int | bytes) -> list[str]:
    key, descriptor, _ = _pair(value)
    return ["--inherit-fd", f"fd[{descriptor}]:{key}"]


def _veth(value: int | bytes) -> list[str]:
    inside, outside, _ = _pair(value)
    return ["--external", f"veth[{inside}]:{outside}"]


def _joined(value: int | bytes) -> list[str]:
    namespace, path, extra = _pair(value)
    if "," in path:
        raise Untranslatable(f"join_ns {path}: what is behind the comma would be an option")
    return ["--join-ns", f"{namespace}:{path}" + (f",{extra}" if extra else "")]


def _unix_socket(value: int | bytes) -> list[str]:
    inode, _, _ = _pair(value)
    return [f"--ext-unix-sk={inode}"]


def _cgroups(value: int | bytes) -> list[str]:
    if not isinstance(value, int) or value >= len(_CGROUP_MODES):
        raise Untranslatable(f"manage_cgroups_mode {value!r}")
    return [f"--manage-cgroups={_CGROUP_MODES[value]}"]


def _cgroups_at_all(value: int | bytes) -> list[str]:
    return ["--manage-cgroups=" + ("soft" if value else "ignore")]


def _empty_namespaces(value: int | bytes) -> list[str]:
    if not isinstance(value, int) or value & ~_CLONE_NEWNET:
        raise Untranslatable(f"empty_ns {value!r}")
    return ["--empty-ns", "net"] if value else []


def _network_lock(value: int | bytes) -> list[str]:
    if not isinstance(value, int) or value not in _NETWORK_LOCKS:
        raise Untranslatable(f"network_lock {value!r}")
    return ["--network-lock", _NETWORK_LOCKS[value]]


def _config_file(value: int | bytes) -> list[str]:
    """Over RPC such a file overrides options; on the command line options override it.

    So it can be left out when it is not there, which is the usual case, and not translated else.
    """
    path = _word(value)
    if path and os.path.exists(path):
        raise Untranslatable(f"configuration file {path}")
    return []


_SPECIAL = {
    9: _log_level,
    19: _veth,
    23: _external_mount,
    24: _cgroups_at_all,
    25: _cgroup_root,
    27: _inherited,
    33: _unix_socket,
    34: _cgroups,
    38: _empty_namespaces,
    39: _joined,
    51: _config_file,
    64: _network_lock,
}
