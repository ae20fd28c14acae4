"""The doctor on the whole machine as it is, and on tools made of real programs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from agent.config import Tools
from agent.doctor import examine
from agent.doctor.criu import FEATURES, configuration_finding, criu_findings
from agent.doctor.finding import Finding
from agent.doctor.tools import iptables_finding, pycriu_finding, runc_finding, tar_finding


def program(path: Path, script: str) -> Path:
    """A real executable that stands in for a tool."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    named = {finding.name: finding for finding in findings}
    assert len(named) == len(findings), "two findings share a name"
    return named


# --- the whole ---


async def test_examine_looks_at_this_machine_as_it_is() -> None:
    findings = by_name(await examine())

    assert set(findings) >= {
        "capabilities", "kernel", "criu", "criu configuration", "pycriu", "runc",
        "iptables-restore", "tar, gzip", "cgroups", "pipe size", "state directory", "/run",
        "GPU driver", "GPUs",
    }  # fmt: skip
    assert findings["kernel"].detail == os.uname().release
    for finding in findings.values():
        assert finding.detail
        assert bool(finding.advice) == (finding.status != "ok"), finding


async def test_examine_survives_a_machine_without_any_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CHECKPOINT_AGENT_CRIU", str(tmp_path / "no-criu"))
    monkeypatch.setenv("CHECKPOINT_AGENT_RUNC", str(tmp_path / "no-runc"))

    findings = by_name(await examine())

    for name in ("criu", "runc", "iptables-restore"):
        assert findings[name].status == "fail"
        assert "No such file" in findings[name].detail
        assert "install" in findings[name].advice or "make setup" in findings[name].advice


async def test_examine_takes_the_tools_it_is_given(tmp_path: Path) -> None:
    criu = program(tmp_path / "criu", "echo Version: 9.9")
    runc = program(tmp_path / "runc", "echo runc version 8.8.8")

    findings = by_name(await examine(Tools(criu=criu, runc=runc)))

    assert findings["criu"].detail == f"9.9 ({criu})"
    assert findings["runc"].detail == f"8.8.8 ({runc})"


# --- programs ---


async def test_criu_that_does_not_start_says_why_and_is_asked_nothing_else(tmp_path: Path) -> None:
    message = "Error (criu/vdso.c:1): Unexpected rt vDSO area bounds"
    criu = program(tmp_path / "criu", f'echo "{message}" >&2; exit 1')

    (finding,) = await criu_findings(criu)

    assert finding.status == "fail"
    assert message in finding.detail
    assert "make setup" in finding.advice


@pytest.mark.parametrize("version", ["3.17.1", "4.0"])
async def test_criu_that_is_too_old_is_refused(tmp_path: Path, version: str) -> None:
    criu = program(tmp_path / "criu", f"echo Version: {version}")

    (finding,) = await criu_findings(criu)

    assert (finding.name, finding.status) == ("criu", "fail")
    assert version in finding.detail
    assert "4.1" in finding.advice


@pytest.mark.parametrize("version", ["4.1", "4.1.1", "4.10", "5.0"])
async def test_criu_that_is_new_enough_is_accepted(tmp_path: Path, version: str) -> None:
    criu = program(tmp_path / "criu", f"echo Version: {version}")

    findings = by_name(await criu_findings(criu, kernel="6.15.9-amd64"))

    assert {finding.status for finding in findings.values()} == {"ok"}
    assert set(findings) == {"criu", "criu check", *(f"criu {name}" for name in FEATURES)}


@pytest.mark.parametrize(
    ("version", "kernel", "status"),
    [
        ("4.1.1", "6.15.0", "ok"),
        ("4.1.1", "6.16.0", "warn"),
        ("4.1.1", "7.0-rc1", "warn"),
        ("4.2", "6.18.1", "ok"),
    ],
)
async def test_criu_that_cannot_dump_tcp_sockets_on_this_kernel_is_a_warning(
    tmp_path: Path, version: str, kernel: str, status: str
) -> None:
    criu = program(tmp_path / "criu", f"echo Version: {version}")

    findings = by_name(await criu_findings(criu, kernel))

    assert findings["criu"].status == status
    assert ("TCP" in findings["criu"].advice) == (status == "warn")


async def test_missing_features_are_warnings_and_a_failed_check_is_not(tmp_path: Path) -> None:
    script = """case "$*" in
        --version) echo Version: 9.9 ;;
        "check --feature timens" | "check --feature pagemap_scan") exit 1 ;;
        "check --feature "*) ;;
        check) printf "Error: no kcmp here\\nWarn: does not look good\\n" >&2; exit 1 ;;
        esac"""
    findings = by_name(await criu_findings(program(tmp_path / "criu", script)))

    warned = {name for name, finding in findings.items() if finding.status == "warn"}
    assert warned == {"criu timens", "criu pagemap_scan"}
    assert findings["criu timens"].advice == FEATURES["timens"]
    assert findings["criu check"].status == "fail"
    assert findings["criu check"].detail == "Error: no kcmp here"


async def test_a_tool_for_another_processor_is_a_finding(tmp_path: Path) -> None:
    criu = tmp_path / "criu"
    criu.write_bytes(b"\x7fELF but not for here")
    criu.chmod(0o755)

    (finding,) = await criu_findings(criu)

    assert finding.status == "fail"
    assert "format" in finding.detail.lower()


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("echo runc version 1.1.5+ds1", "ok"),
        ("echo runc version 1.2.0-rc.1", "ok"),
        ("echo runc version 1.0.3", "warn"),
        ("echo something else", "fail"),
        ("exit 7", "fail"),
    ],
)
async def test_runc(tmp_path: Path, script: str, status: str) -> None:
    assert (await runc_finding(program(tmp_path / "runc", script))).status == status


async def test_iptables_restore_is_looked_up_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "iptables-restore", "echo iptables-restore v9.9.9")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    assert await iptables_finding() == Finding("iptables-restore", "ok", "iptables-restore v9.9.9")


def test_a_machine_without_gzip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tar_finding().status == "ok"
    program(tmp_path / "tar", "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (tar_finding().status, tar_finding().detail) == ("fail", "no gzip")


async def test_pycriu_that_cannot_be_imported_says_why(tmp_path: Path) -> None:
    # A real interpreter, without the virtual environment's packages.
    python = program(tmp_path / "python", f'exec "{sys.executable}" -I -S "$@"')

    finding = await pycriu_finding(python)

    assert finding.status == "fail"
    assert "No module named 'pycriu'" in finding.detail


async def test_pycriu_that_can_be_imported_says_its_version(tmp_path: Path) -> None:
    (tmp_path / "pycriu.py").write_text('__version__ = "4.1.1"\n')
    python = program(
        tmp_path / "python", f'PYTHONPATH="{tmp_path}" exec "{sys.executable}" -S "$@"'
    )

    assert await pycriu_finding(python) == Finding("pycriu", "ok", "4.1.1")


# --- CRIU's configuration files ---


@pytest.mark.parametrize("line", ["stream", "  stream  # fast", "--stream"])
def test_stream_in_a_configuration_is_found(tmp_path: Path, line: str) -> None:
    file = tmp_path / "runc.conf"
    file.write_text(f"log-level 4\n{line}\n")

    finding = configuration_finding([tmp_path / "default.conf", file])

    assert finding.status == "fail"
    assert str(file) in finding.advice


def test_stream_in_the_personal_configuration_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".criu").mkdir()
    (tmp_path / ".criu/default.conf").write_text("stream\n")

    assert configuration_finding([]).status == "fail"


@pytest.mark.parametrize("text", ["", "# stream\n", "tcp-established\nlog-file stream\n"])
def test_other_configurations_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "default.conf"
    file.write_text(text)

    assert configuration_finding([file]).status == "ok"
