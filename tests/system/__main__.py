"""`make test-system`: a whole machine, from `make setup` to `make uninstall`, under systemd.

    python -m tests.system [--log FILE] [--only PATTERN]

Each step is a command in the machine. The machine is new for each run and gone afterwards; when a
step fails, what it has said, its journal and its kernel's messages stay in .tools/system/failed.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from tests.system.guest import Guest, GuestFailed
from tests.system.payload import CACHE, build_payload
from tests.system.results import Result, Results, State
from tests.system.steps import STEPS, Step, tests_in

# Seconds for what is asked after a failure.
_LOG_SECONDS = 300.0
_LOGS = {
    "journal.log": "journalctl --boot all --no-pager --output short-precise",
    "kernel.log": "dmesg",
    "units.log": "systemctl --no-pager --failed; systemctl --no-pager status 'checkpoint-agent*'",
    "processes.log": "ps axfww -o pid,ppid,stat,cgroup,args",
}


def main() -> int:
    """The exit status: 0 when everything has passed."""
    options = _options()
    results = Results()
    # Short: paths of sockets below it have 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="system-"))
    try:
        payload = build_payload(directory)
        with Guest(directory, CACHE / "image", payload) as guest:
            _run(guest, results, options.only)
            if not results.passed:
                _keep_logs(guest)
    finally:
        shutil.rmtree(directory)
    _write(results.table())
    if options.log is not None:
        options.log.write_text(results.document())
    return 0 if results.passed else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make test-system")
    parser.add_argument("--log", type=Path, help="write what came of it there, as Markdown")
    parser.add_argument(
        "--only", default="", type=re.compile, metavar="PATTERN",
        help="of the tests, only steps in whose names this regular expression is found",
    )  # fmt: skip
    return parser.parse_args()


def _run(guest: Guest, results: Results, only: re.Pattern[str]) -> None:
    """All steps, up to one that fails and that the others stand on."""
    boot = _boot(guest, results)
    # It has not booted: nothing can be done in it.
    for step in STEPS if boot else ():
        if not step.needed and not only.search(step.name):
            continue
        _say(step.name)
        try:
            result, boot = _step(guest, step, boot)
        except (GuestFailed, OSError) as failed:
            # OSError: its agent does not answer in time, on a host that is too busy.
            results.add(step.name, step.limit, "failed", str(failed))
            return
        results.extend(result)
        if step.needed and result[0].state == "failed":
            return


def _boot(guest: Guest, results: Results) -> str:
    """Wait for the machine; the id of its boot, "" if there is none."""
    began = time.monotonic()
    try:
        boot = guest.wait_up()
        results.machine = guest.run(
            "uname -r; dpkg-query -W -f '${Package} ${Version}\\n' systemd runc criu containerd; "
            "stat -fc %T /sys/fs/cgroup", limit=60,
        ).output.split("\n")  # fmt: skip
    except (GuestFailed, OSError) as failed:
        results.add("the machine boots", time.monotonic() - began, "failed", str(failed))
        return ""
    results.accelerator = guest.accelerator
    results.add("the machine boots", time.monotonic() - began, "passed")
    return boot


def _step(guest: Guest, step: Step, boot: str) -> tuple[list[Result], str]:
    began = time.monotonic()
    if step.reset:
        guest.reset()
    done = None if step.reset else guest.run(step.command, limit=step.limit, show=_show)
    if step.reboots:
        boot = guest.wait_up(after=boot)
    seconds = time.monotonic() - began
    state: State = "passed" if done is None or done.status == 0 or step.reboots else "failed"
    results = [Result(step.name, seconds, state, done.output[-3000:] if done else "")]
    if step.reports:
        results += tests_in(guest.run("cat /run/report.xml", limit=60).output)
    return results, boot


def _say(line: str) -> None:
    _write(f"[{time.strftime('%H:%M:%S')}] {line}")


def _show(line: str) -> None:
    _write(f"    {line}")


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _keep_logs(guest: Guest) -> None:
    """What a person wants to see after a failure."""
    kept = CACHE / "failed" / time.strftime("%Y%m%d-%H%M%S")
    kept.mkdir(parents=True)
    for name in ("console.log", "output.log", "qemu.log"):
        # One that did not start has not all of them.
        with suppress(FileNotFoundError):
            shutil.copy(guest.directory / name, kept)
    try:
        for name, command in _LOGS.items():
            (kept / name).write_text(guest.run(command, limit=_LOG_SECONDS).output)
    except (GuestFailed, OSError) as failed:
        _say(f"the machine tells no more: {failed}")
    _say(f"its logs are in {kept}")


if __name__ == "__main__":
    sys.exit(main())
