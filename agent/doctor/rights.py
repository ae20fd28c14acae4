"""Root, or rather the capabilities that root usually has and a container often lacks."""

from __future__ import annotations

from pathlib import Path

from agent.doctor.finding import Finding

# Bit in CapEff, name, what it is needed for.
NEEDED = (
    (0, "CAP_CHOWN", "to restore the ownership of files"),
    (1, "CAP_DAC_OVERRIDE", "to open files of any user"),
    (2, "CAP_DAC_READ_SEARCH", "to read other processes' files"),
    (3, "CAP_FOWNER", "to restore the modes of files"),
    (5, "CAP_KILL", "to stop and continue processes of any user"),
    (6, "CAP_SETGID", "to restore group ids"),
    (7, "CAP_SETUID", "to restore user ids"),
    (8, "CAP_SETPCAP", "to restore capabilities"),
    (12, "CAP_NET_ADMIN", "to lock the network and repair TCP connections"),
    (18, "CAP_SYS_CHROOT", "to restore root directories"),
    (19, "CAP_SYS_PTRACE", "to seize processes"),
    (21, "CAP_SYS_ADMIN", "to enter namespaces, mount, and set PIDs"),
)
# Without it CRIU cannot read the limits of a task that has another user than itself (prlimit(2)),
# and gives up. What runs as root it can do.
WANTED = (24, "CAP_SYS_RESOURCE", "to checkpoint what does not run as root")

ADVICE = "run as root; in a container, as a privileged one"


def capability_finding(status: Path = Path("/proc/self/status")) -> Finding:
    """Which of the needed capabilities are effective in this process?"""
    held = _effective(status.read_text())
    missing = [f"{name} ({why})" for bit, name, why in NEEDED if not held >> bit & 1]
    bit, name, why = WANTED
    if missing:
        return Finding("capabilities", "fail", "missing: " + ", ".join(missing), ADVICE)
    if not held >> bit & 1:
        advice = "add it to the bounding set of this service or container"
        return Finding("capabilities", "warn", f"missing: {name} ({why})", advice)
    return Finding("capabilities", "ok", "all that are needed")


def _effective(status: str) -> int:
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0
