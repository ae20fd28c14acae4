"""The other programs and libraries that the agent stands on."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from agent.doctor.ask import ask, dotted, last_line, version_in
from agent.doctor.finding import Finding

# The first series that hands a container's checkpoint options to CRIU the way the launcher reads.
MINIMUM_RUNC = (1, 1)


async def runc_finding(runc: Path) -> Finding:
    """runc: there, starts, and not ancient."""
    done = await ask([runc, "--version"])
    version = version_in(done.stdout, "runc version")
    if done.returncode != 0 or version is None:
        return Finding("runc", "fail", f"{runc}: {last_line(done)}", "apt-get install runc")
    detail = f"{dotted(version)} ({runc})"
    if version < MINIMUM_RUNC:
        advice = f"runc >= {dotted(MINIMUM_RUNC)} is what was tested: install a newer one"
        return Finding("runc", "warn", detail, advice)
    return Finding("runc", "ok", detail)


async def pycriu_finding(python: Path | None = None) -> Finding:
    """CRIU's Python package, imported the way the agent would, in a process of its own.

    (Its generated code may refuse the installed protobuf with errors of many classes.)
    """
    program = "import pycriu; print('pycriu', pycriu.__version__)"
    done = await ask([python or sys.executable, "-c", program])
    version = version_in(done.stdout, "pycriu")
    if done.returncode != 0 or version is None:
        return Finding("pycriu", "fail", last_line(done), "run `make setup`")
    return Finding("pycriu", "ok", dotted(version))


def tar_finding() -> Finding:
    """What writable layers and volumes are taken with; and what CRIU packs a tmpfs with."""
    missing = [name for name in ("tar", "gzip") if shutil.which(name) is None]
    if not missing:
        return Finding("tar, gzip", "ok", "there")
    # CRIU would notice the lack of gzip at the restore: its dump of a tmpfs is empty then.
    return Finding(
        "tar, gzip", "fail", f"no {' and no '.join(missing)}", "apt-get install tar gzip"
    )


async def iptables_finding() -> Finding:
    """What CRIU stops the packets of established connections with."""
    done = await ask(["iptables-restore", "--version"])
    if done.returncode == 0:
        return Finding("iptables-restore", "ok", done.stdout.strip())
    advice = "apt-get install iptables, and have /usr/sbin in PATH"
    return Finding("iptables-restore", "fail", last_line(done), advice)
