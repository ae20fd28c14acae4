"""Both units as `make install` leaves them: they start, say so, and hold what they promise."""

from __future__ import annotations

import re
import stat
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.system.inside.broker import URL, start_broker
from tests.system.inside.node import PATIENCE, SOCKET, UNIT, Node, configure, prop, systemctl

pytestmark = pytest.mark.timeout(900)

API = "checkpoint-agent-api.service"


def test_the_daemon_says_that_it_is_ready_and_lives(node: Node) -> None:
    assert (prop("Type"), prop("ActiveState")) == ("notify", "active")
    # What it has told systemd itself.
    assert prop("StatusText") == "node node-1 of default"
    assert stat.S_IMODE(SOCKET.stat().st_mode) == 0o600
    assert stat.S_IMODE(SOCKET.parent.stat().st_mode) == 0o700
    assert "active (running)" in systemctl("status", UNIT)


def test_it_answers_the_watchdog_and_stops_in_order(node: Node) -> None:
    first = int(prop("WatchdogTimestampMonotonic"))
    deadline = time.monotonic() + PATIENCE
    while int(prop("WatchdogTimestampMonotonic")) == first:
        assert time.monotonic() < deadline
        time.sleep(1)
    systemctl("stop", UNIT)
    assert (prop("Result"), prop("NRestarts")) == ("success", "0")


def test_pressure_stall_information_is_there() -> None:
    for name in ("cpu", "memory", "io"):
        assert Path(f"/proc/pressure/{name}").read_text().startswith("some avg10=")
        assert Path(f"/sys/fs/cgroup/system.slice/{name}.pressure").exists()


def test_the_api_starts_under_its_confinement_and_reads_nothing_else(node: Node) -> None:
    start_broker()
    configure(f'[nats]\nurl = "{URL}"\n')
    systemctl("start", API)
    try:
        # Its unit has started when it listens; the broker is found meanwhile.
        deadline = time.monotonic() + PATIENCE
        while not _ready():
            assert time.monotonic() < deadline
            time.sleep(1)
        pid = prop("MainPID", API)
        status = Path(f"/proc/{pid}/status").read_text()
        uid = re.findall(r"^Uid:\t(\d+)", status, re.MULTILINE)[0]
        assert uid != "0"
        assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)
        assert "NoNewPrivs:\t1" in status
        assert "Seccomp:\t2" in status
        for path in ("/etc/checkpoint-agent/config.toml", "/var/lib/checkpoint-agent-api/api.db"):
            assert _can_read(pid, uid, path)
        for path in (
            "/etc/checkpoint-agent/env",
            "/etc/checkpoint-agent/api-env",
            "/etc/shadow",
            "/root/checkpoint-agent",
            "/run/checkpoint-agent/agent.sock",
            "/var/lib/checkpoint-agent/actions.db",
            "/dev/vda",
        ):
            assert not _can_read(pid, uid, path), path
    finally:
        systemctl("stop", API)
    assert prop("Result", API) == "success"


def _ready() -> bool:
    try:
        with urllib.request.urlopen("http://127.0.0.1:8800/readyz", timeout=60) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 503:
            raise
        return False


def _can_read(pid: str, uid: str, path: str) -> bool:
    """Whether a process of this user, in the namespaces of this process, can open a file."""
    enter = ["nsenter", "--target", pid, "--mount", "--user", "--setuid", uid, "--setgid", uid]
    return subprocess.run([*enter, "head", "-c1", path], capture_output=True).returncode == 0
