"""Do the lock files hold everything pyproject.toml asks for, pinned and with hashes? Offline.

`make check` runs it, so that a dependency added without `make lock` is noticed at once.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
Pins = dict[str, list[Version]]


def read_pins(lock: Path) -> tuple[Pins, list[str]]:
    """Versions by package name (several, where they differ by Python), and what is wrong."""
    pins: Pins = {}
    problems = []
    for entry in re.split(r"\n(?=\S)", lock.read_text()):
        if entry.startswith("#"):
            continue
        match = re.match(r"([A-Za-z0-9._-]+)==([^\s;\\]+)", entry)
        if match is None or "--hash=sha256:" not in entry:
            problems.append(f"{lock.name}: not pinned with a hash: {entry.splitlines()[0]}")
            continue
        pins.setdefault(canonicalize_name(match[1]), []).append(Version(match[2]))
    return pins, problems


def check(lock: Path, wanted: list[str]) -> list[str]:
    """What ``lock`` lacks of the requirements ``wanted``."""
    pins, problems = read_pins(lock)
    for requirement in map(Requirement, wanted):
        versions = pins.get(canonicalize_name(requirement.name), [])
        if not versions or not all(requirement.specifier.contains(v, True) for v in versions):
            found = ", ".join(map(str, versions)) or "nothing"
            problems.append(f"{lock.name}: {requirement} is asked for, {found} is pinned")
    return problems


def main() -> int:
    """Check both locks; 1 when something is missing."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    run = project["project"]["dependencies"] + project["dependency-groups"]["build"]
    run += project["build-system"]["requires"]
    for extra in ("broker", "gpu"):
        run += project["project"]["optional-dependencies"][extra]
    test = run + project["project"]["optional-dependencies"]["dev"]
    problems = check(ROOT / "deploy/requirements.lock", run)
    problems += check(ROOT / "deploy/requirements-dev.lock", test)
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        print("Run `make lock` and commit what it writes.", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
