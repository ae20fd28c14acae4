"""`make install` and its counterpart, into a directory of the test's; and what they install."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from agent.settings import load

ROOT = Path(__file__).resolve().parent.parent.parent
UNIT = ROOT / "systemd" / "checkpoint-agent.service"
API_UNIT = ROOT / "systemd" / "checkpoint-agent-api.service"


def _directives(unit: Path) -> dict[str, str]:
    """Of a unit; the last of each name."""
    lines = unit.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and line[0] not in "#[ ")


@pytest.mark.parametrize("source", [UNIT, API_UNIT], ids=["daemon", "api"])
def test_systemd_understands_the_unit(tmp_path: Path, source: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed (package systemd)")
    # The programs need to be there.
    program = tmp_path / "bin" / "checkpoint-agent"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / source.name
    unit.write_text(source.read_text().replace("/opt/checkpoint-agent", str(tmp_path)))
    done = subprocess.run(
        [analyze, "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_is_more_patient_than_the_daemon() -> None:
    directives = _directives(UNIT)
    stop_seconds = load(Path(os.devnull), {}).stop_seconds
    # What the daemon takes after that: a rollback (60 s) and the last events (5 s).
    assert float(directives["TimeoutStopSec"]) > stop_seconds + 60 + 5
    assert directives["Type"] == "notify"
    assert directives["ExecStopPost"].endswith("checkpoint-agent thaw --all")


def test_the_api_s_database_is_where_its_user_may_write() -> None:
    directives = _directives(API_UNIT)
    name, _, url = directives["Environment"].partition("=")
    settings = load(Path(os.devnull), {name: url})
    assert directives["DynamicUser"] == "yes"
    assert settings.api.database == f"sqlite:////var/lib/{directives['StateDirectory']}/api.db"
    # systemd reads the file afterwards: what is in it counts.
    assert directives["EnvironmentFile"] == "-/etc/checkpoint-agent/api-env"


def _install(word: str, destination: Path, prefix: str = "/opt/agent") -> str:
    done = subprocess.run(
        [ROOT / "deploy" / "install.sh", word],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"DESTDIR": str(destination), "PREFIX": prefix},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_is_installed_updated_and_removed(tmp_path: Path) -> None:
    program, config = tmp_path / "opt" / "agent", tmp_path / "etc" / "checkpoint-agent"
    units = tmp_path / "etc" / "systemd" / "system"
    # What an older one has left: the program goes as a whole, secrets stay.
    program.mkdir(parents=True)
    for name in (".checkpoint-agent", "leftover"):
        (program / name).touch()
    config.mkdir(parents=True)
    (config / "env").write_text("CHECKPOINT_AGENT_NATS__TOKEN=mine\n")
    (config / "env").chmod(0o600)
    _install("install", tmp_path)
    assert not (program / "leftover").exists()
    assert [path.name for path in program.parent.iterdir()] == ["agent"]
    assert "mine" in (config / "env").read_text()
    assert (_mode(config / "env"), _mode(config / "api-env")) == (0o600, 0o600)
    assert _mode(config / "config.toml") == 0o644
    assert sorted(path.name for path in units.iterdir()) == [API_UNIT.name, UNIT.name]
    for unit, command in ((UNIT, "daemon"), (API_UNIT, "api")):
        text = (units / unit.name).read_text()
        assert "/opt/checkpoint-agent" not in text
        assert f"ExecStart=/opt/agent/bin/checkpoint-agent {command}" in text
    assert os.access(program / "bin" / "checkpoint-agent", os.X_OK)
    assert str(tmp_path) not in (program / "venv" / "bin" / "checkpoint-agent").read_text()
    python = program / "venv" / "bin" / "python"
    words = ["-m", "agent", "daemon", "--show-config", "--config", str(config / "config.toml")]
    # From elsewhere: it stands on nothing of this checkout.
    done = subprocess.run([python, *words], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    # All that the API consists of: its tables are made by files of their own.
    database = {"CHECKPOINT_AGENT_API__DATABASE": f"sqlite:///{tmp_path}/api.db"}
    words = ["-m", "agent", "api", "token", "create", "me"]
    token = subprocess.run(
        [python, *words], cwd=tmp_path, env=os.environ | database, capture_output=True, check=False
    )
    assert (token.returncode, token.stdout[:4]) == (0, b"cpa_"), token.stderr
    _hands_over_to_runc(program / "bin" / "checkpoint-runc", tmp_path)
    criu = subprocess.run([program / "criu" / "bin" / "criu", "--version"], check=False)
    assert criu.returncode == 0

    _install("uninstall", tmp_path)
    assert not program.exists()
    assert list(units.iterdir()) == []
    assert (config / "env").exists()
    _install("uninstall", tmp_path)


def _hands_over_to_runc(wrapper: Path, destination: Path) -> None:
    """It is runc for what containerd asks, and asks this agent for what is to come back."""
    runc = [shutil.which("runc") or "runc", "--version"]
    given = subprocess.run([wrapper, "--version"], capture_output=True, check=True)
    assert given.stdout == subprocess.run(runc, capture_output=True, check=True).stdout
    [line] = [line for line in wrapper.read_text().splitlines() if " -I -S " in line]
    _, python, *_, start, _, socket, _, _ = shlex.split(line)
    assert socket == str(load(Path(os.devnull), {}).restore_socket)
    for path in (python, start):
        assert path.startswith("/opt/agent/venv/")
        assert (destination / path[1:]).exists()


@pytest.mark.parametrize(
    "prefix",
    ["/", "/usr", "relative/x", "/opt/../usr", "/opt/a b", "/opt/"],
    ids=["root", "usr", "relative", "dots", "space", "slash"],
)
def test_a_prefix_that_would_be_removed_with_more_in_it_is_refused(
    tmp_path: Path, prefix: str
) -> None:
    done = subprocess.run(
        [ROOT / "deploy" / "install.sh", "uninstall"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"DESTDIR": str(tmp_path), "PREFIX": prefix},
    )
    assert done.returncode == 1
    assert "PREFIX must be" in done.stderr


def test_a_directory_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "opt" / "theirs").mkdir(parents=True)
    done = subprocess.run(
        [ROOT / "deploy" / "install.sh", "uninstall"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"DESTDIR": str(tmp_path), "PREFIX": "/opt/theirs"},
    )
    assert done.returncode == 1
    assert "not from here" in done.stderr
    assert (tmp_path / "opt" / "theirs").exists()


def test_a_node_with_the_agent_of_a_daemonset_gets_no_second_one(tmp_path: Path) -> None:
    program = tmp_path / "opt" / "checkpoint-agent"
    (program / "0.1").mkdir(parents=True)
    (program / "current").symlink_to("0.1")
    done = subprocess.run(
        [ROOT / "deploy" / "install.sh", "install"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"DESTDIR": str(tmp_path), "PREFIX": "/opt/checkpoint-agent"},
    )
    assert done.returncode == 1
    assert "a DaemonSet" in done.stderr
    assert (program / "current").exists()


def test_two_at_once_take_turns_and_nothing_of_a_killed_one_stays(tmp_path: Path) -> None:
    place = tmp_path / "opt"
    for name in ("agent", ".checkpoint-agent.x1y2z3", ".checkpoint-agent.x1y2z3.old"):
        (place / name).mkdir(parents=True)
    (place / "agent" / ".checkpoint-agent").touch()
    held = os.open(place, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with subprocess.Popen(
        [ROOT / "deploy" / "install.sh", "uninstall"],
        stdout=subprocess.DEVNULL,
        env=os.environ | {"DESTDIR": str(tmp_path), "PREFIX": "/opt/agent"},
    ) as waiting:
        try:
            with pytest.raises(subprocess.TimeoutExpired):
                waiting.wait(timeout=1)
            assert (place / "agent").exists()
        finally:
            # Also when that was not so: the block ends when the child does, which waits for it.
            os.close(held)
        assert waiting.wait(timeout=30) == 0
    assert list(place.iterdir()) == []
