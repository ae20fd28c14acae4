"""`make test-system` runs some of these tests in a machine with a part of their packages."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.system.payload import ROOT, TEST_PACKAGES, locked
from tests.system.steps import STEPS

# Collects tests as if there were no other packages than the first argument has.
COLLECT = """
import importlib.abc, re, sys
from importlib.metadata import packages_distributions
import pytest

there = set(sys.argv[1].split())

def is_there(distribution):
    return re.sub("[-_.]+", "-", distribution).lower() in there

absent = {
    name for name, found in packages_distributions().items() if not any(map(is_there, found))
}

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"not in the machine: {name}", name=name)

sys.meta_path.insert(0, Absent())
plugins = ["-p", "pytest_asyncio.plugin", "-p", "pytest_timeout", "-p", "no:cacheprovider"]
sys.exit(pytest.main(["--collect-only", "-q", *plugins, *sys.argv[2:]]))
"""


def test_what_is_run_there_imports_nothing_else() -> None:
    there = {"checkpoint-agent", *locked("requirements.lock"), *TEST_PACKAGES}
    words = {word for step in STEPS if step.reports for word in step.command.split()}
    paths = sorted({word.partition("::")[0] for word in words if word.startswith("tests/")})
    assert "tests/system/inside/test_units.py" in paths
    collected = subprocess.run(
        [sys.executable, "-c", COLLECT, " ".join(there), *paths],
        cwd=ROOT,
        env=os.environ
        | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "CHECKPOINT_AGENT_SYSTEM_TEST": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert collected.returncode == 0, collected.stdout + collected.stderr
    assert all(f"{path}::" in collected.stdout for path in paths)
