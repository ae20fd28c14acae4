"""CRIU: does it start, is it new enough, what can it do on this kernel, and is it left in peace?"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from agent.doctor.ask import NOT_FOUND, ask, dotted, last_line, version_in
from agent.doctor.finding import Finding

# The first version seen to stream through an unpatched runc; 3.17.1 does not start on kernel 6.x.
MINIMUM = (4, 1)

# Since this kernel only some sockets have the option SO_PASSCRED; CRIU asked every one before 4.2.
SOCKETS_CHANGED, SOCKETS_UNDERSTOOD = (6, 16), (4, 2)

# Features of the kernel that CRIU uses where it can, and what is lost without each.
FEATURES = {
    "mem_dirty_track": "no incremental checkpoints; whole ones work (CONFIG_MEM_SOFT_DIRTY)",
    "pagemap_scan": "sparse memory is dumped more slowly (Linux 6.7)",
    "pidfd_store": "incremental checkpoints cannot tell a reused PID (Linux 5.3)",
    "clone3_set_tid": "restored PIDs are taken by a race against other processes (Linux 5.5)",
    "timens": "monotonic clocks jump on restore (Linux 5.5, CONFIG_TIME_NS)",
    "get_rseq_conf": "programs that use restartable sequences, as glibc 2.35 does, cannot be "
    "dumped (Linux 5.13)",
    "move_mount_set_group": "containers with user namespaces cannot be restored (Linux 5.15)",
    "overlayfs_maps": "files mapped from an overlay root may not be found (Linux 6.8)",
    "network_lock_nftables": "the network is locked through iptables-restore only",
}

# CRIU reads these before it reads what the agent or runc tells it.
CONFIGURATIONS = (Path("/etc/criu/default.conf"), Path("/etc/criu/runc.conf"))


async def criu_findings(criu: Path, kernel: str | None = None) -> list[Finding]:
    """Everything about the program ``criu``; only that it does not start, when it does not."""
    started = await _start_finding(criu, version_in(kernel or os.uname().release) or (0,))
    if started.status == "fail":
        return [started]
    return [started, await _check_finding(criu), *await _feature_findings(criu)]


async def _start_finding(criu: Path, kernel: tuple[int, ...]) -> Finding:
    done = await ask([criu, "--version"])
    version = version_in(done.stdout, "Version:")
    if done.returncode == NOT_FOUND:
        return Finding("criu", "fail", f"{criu}: {done.stderr}", "run `make setup`")
    if done.returncode != 0 or version is None:
        return Finding(
            "criu",
            "fail",
            f"{criu} does not start: {last_line(done)}",
            "too old for this kernel, perhaps: `make setup` brings one that starts",
        )
    detail = f"{dotted(version)} ({criu})"
    if version < MINIMUM:
        advice = f"CRIU >= {dotted(MINIMUM)} is needed: run `make setup`"
        return Finding("criu", "fail", detail, advice)
    if version < SOCKETS_UNDERSTOOD and kernel >= SOCKETS_CHANGED:
        advice = "cannot dump TCP sockets on this kernel: `make setup` brings a CRIU that can"
        return Finding("criu", "warn", detail, advice)
    return Finding("criu", "ok", detail)


async def _check_finding(criu: Path) -> Finding:
    done = await ask([criu, "check"])
    if done.returncode == 0:
        return Finding("criu check", "ok", "the kernel has what CRIU needs")
    advice = "run as root, on a kernel with CONFIG_CHECKPOINT_RESTORE"
    return Finding("criu check", "fail", last_line(done), advice)


async def _feature_findings(criu: Path) -> list[Finding]:
    async with asyncio.TaskGroup() as questions:
        answers = [
            questions.create_task(ask([criu, "check", "--feature", feature]))
            for feature in FEATURES
        ]
    return [
        Finding(f"criu {feature}", "ok", "supported")
        if done.result().returncode == 0
        else Finding(f"criu {feature}", "warn", "not supported by this kernel", FEATURES[feature])
        for feature, done in zip(FEATURES, answers, strict=True)
    ]


def configuration_finding(files: Sequence[Path] = CONFIGURATIONS) -> Finding:
    """Is ``stream`` set in a configuration file of CRIU?

    It makes every request over RPC, and so every `runc checkpoint`, abort.
    """
    for file in (*files, *_personal_configuration()):
        if _sets_stream(file):
            advice = f"remove the line `stream` from {file}: it aborts every runc checkpoint"
            return Finding("criu configuration", "fail", f"{file} sets stream", advice)
    return Finding("criu configuration", "ok", "no setting that gets in the way")


def _personal_configuration() -> list[Path]:
    home = os.environ.get("HOME")
    return [Path(home, ".criu/default.conf")] if home else []


def _sets_stream(file: Path) -> bool:
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:  # not there or not ours to read: then not CRIU's either
        return False
    return any(line.split("#")[0].strip().lstrip("-") == "stream" for line in lines)
