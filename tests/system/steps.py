"""What is done in the machine, in order: what the README says, then what systemd adds to it."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass

from tests.system.results import Result, State

# Generous, because the processor is emulated and the host may be busy: on two idle cores each
# step takes a tenth of it.
MINUTE = 60.0

_PYTEST = (
    "CHECKPOINT_AGENT_SYSTEM_TEST=1 .venv/bin/python -m pytest -v --color=no --tb=short"
    " -o faulthandler_timeout=0 --junitxml=/run/report.xml"
)


@dataclass(frozen=True, slots=True)
class Step:
    """One command.

    Attributes:
        limit: seconds.
        needed: without it the others make no sense.
        reports: pytest runs in it: each test has a result of its own.
        reboots: the machine goes down and is waited for.
        reset: there is no command: the machine is reset, as by its button.
    """

    name: str
    command: str = ""
    limit: float = 30 * MINUTE
    needed: bool = False
    reports: bool = False
    reboots: bool = False
    reset: bool = False


def _tests(name: str, *paths: str, limit: float = 60 * MINUTE) -> Step:
    return Step(name, f"{_PYTEST} {' '.join(paths)}", limit, reports=True)


def _inside(name: str) -> str:
    return f"tests/system/inside/{name}.py"


STEPS = (
    Step(
        "a checkout, and packages for pip",
        "mkdir -p /payload && mount -o ro /dev/vdb /payload && cp -r /payload/source"
        " /root/checkpoint-agent && printf '[global]\\nno-index = true\\nfind-links ="
        " /payload/wheels\\n' >/etc/pip.conf",
        needed=True,
    ),
    Step("make setup", "make setup", 60 * MINUTE, needed=True),
    Step("make demo", "make demo"),
    Step("checkpoint-agent doctor", ".venv/bin/checkpoint-agent doctor", 10 * MINUTE),
    Step("make install", "make install", 60 * MINUTE, needed=True),
    Step(
        "packages for the tests",
        ".venv/bin/python -m pip install --quiet --no-deps --require-hashes -r"
        " /payload/requirements-test.txt && mkdir -p .tools/cri-api &&"
        " cp /payload/api.proto .tools/cri-api",
        needed=True,
    ),
    _tests("units", _inside("test_units")),
    _tests("containers on cgroup v2", _inside("test_containers")),
    _tests("a node of containerd", _inside("test_pods")),
    _tests("the daemon ends in mid-action", _inside("test_unit_ends")),
    _tests("before a reboot", f"{_inside('test_reboot')}::test_before_a_reboot"),
    Step("systemctl reboot", "systemctl reboot", reboots=True, needed=True),
    _tests("after the reboot", f"{_inside('test_reboot')}::test_after_a_reboot"),
    _tests("before a reset", f"{_inside('test_reboot')}::test_before_a_reset"),
    Step("a hard reset", reset=True, reboots=True, needed=True),
    _tests("after the reset", f"{_inside('test_reboot')}::test_after_a_reset"),
    _tests(
        "tests of the suite, on cgroup v2",
        "-o timeout=600 tests/unit/test_cgroup.py tests/unit/test_freeze.py"
        " tests/integration/test_container_roundtrip.py tests/integration/test_container_kinds.py"
        " -k 'echo or freez or leaves_it_running or somebody or user_namespace'",
    ),
    Step("make uninstall", "make uninstall", 5 * MINUTE),
    _tests("nothing is left", _inside("test_uninstalled")),
)


def tests_in(report: str) -> list[Result]:
    """What pytest has written about each test."""
    found = []
    for case in ElementTree.fromstring(report).iter("testcase"):
        problems = [*case.iter("failure"), *case.iter("error")]
        skipped = [*case.iter("skipped")]
        state: State = "failed" if problems else "skipped" if skipped else "passed"
        detail = "\n".join(each.text or each.get("message") or "" for each in problems + skipped)
        name = f"    {case.get('name', '')}"
        found.append(Result(name, float(case.get("time", "0")), state, detail))
    return found
