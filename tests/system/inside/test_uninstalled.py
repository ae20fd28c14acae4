"""After `make uninstall`: nothing runs, nothing is installed; settings and data are the user's."""

from __future__ import annotations

import subprocess
from pathlib import Path

STAYS = {
    Path("/etc/checkpoint-agent"),
    Path("/var/lib/checkpoint-agent"),
    Path("/var/lib/checkpoint-agent-api"),
    # DynamicUser= keeps a service's state there, and links to it.
    Path("/var/lib/private/checkpoint-agent-api"),
}


def test_nothing_is_left() -> None:
    words = ["find", "/etc", "/opt", "/run", "/usr", "/var", "-xdev", "-name", "*checkpoint-agent*",
             "-prune"]  # fmt: skip
    found = {Path(line) for line in _lines(*words)}
    # What systemd keeps of a unit while somebody looks at its journal is no file of ours.
    assert {path for path in found if path.parts[1] != "run"} <= STAYS
    assert not any("agent daemon" in line or "agent api" in line for line in _lines("ps", "axww"))
    listed = _lines("systemctl", "list-units", "--all", "--plain", "--no-legend", "checkpoint-*")
    assert listed == []


def _lines(*words: str) -> list[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.splitlines()
