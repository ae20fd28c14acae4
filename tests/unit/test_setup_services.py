"""deploy/setup-lib.sh: what keeps servers from starting while packages are installed goes again."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli_process import ROOT

pytestmark = pytest.mark.root

OURS = "#!/bin/sh\n# Put here by /some/where/deploy/setup.sh while it runs.\nexit 101\n"
THEIRS = "#!/bin/sh\nexit 0\n"

# A command that is there, so that nothing has to be installed.
SCRIPT = """
set -euo pipefail
ROOT={root} LOG={directory}/log
. {root}/deploy/setup-lib.sh
POLICY={directory}/policy-rc.d NO_CLUSTER={directory}/postgresql/createcluster.d/setup.conf
{commands}
"""


@contextmanager
def _start(directory: Path, commands: str) -> Iterator[subprocess.Popen[str]]:
    """Killed at the end of the block, if it has not ended by then."""
    script = SCRIPT.format(root=ROOT, directory=directory, commands=commands)
    with subprocess.Popen(
        ["bash", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _run(directory: Path, commands: str) -> None:
    with _start(directory, commands) as process:
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 0, said


def _leave(directory: Path, *, theirs: bool, ours: bool = True) -> None:
    """What a run that was killed has left."""
    # Directories that are empty then are removed, this one too.
    (directory / "kept").mkdir()
    if ours:
        (directory / "policy-rc.d").write_text(OURS)
        cluster = directory / "postgresql" / "createcluster.d" / "setup.conf"
        cluster.parent.mkdir(parents=True)
        cluster.touch()
    if theirs:
        (directory / "policy-rc.d.before-setup").write_text(THEIRS)


@pytest.mark.parametrize(("theirs", "ours"), [(True, True), (True, False), (False, True)])
def test_a_run_with_nothing_to_install_repairs_what_a_killed_one_left(
    tmp_path: Path, theirs: bool, ours: bool
) -> None:
    _leave(tmp_path, theirs=theirs, ours=ours)
    _run(tmp_path, "install_packages bash:bash")
    left = {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()}
    assert left == ({"policy-rc.d": THEIRS} if theirs else {})
    assert not (tmp_path / "postgresql").exists()


def test_a_policy_of_the_site_s_own_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "policy-rc.d").write_text(THEIRS)
    _run(tmp_path, "install_packages bash:bash")
    assert (tmp_path / "policy-rc.d").read_text() == THEIRS


def test_it_is_there_while_packages_are_installed_and_no_longer(tmp_path: Path) -> None:
    (tmp_path / "policy-rc.d").write_text(THEIRS)
    (tmp_path / "kept").mkdir()
    _run(tmp_path, 'forbid_services; ! sh "$POLICY"; allow_services; unlock_services; sh "$POLICY"')
    assert {path.name for path in tmp_path.iterdir()} == {"kept", "policy-rc.d"}


def test_that_of_another_checkout_stays_until_it_is_done(tmp_path: Path) -> None:
    _leave(tmp_path, theirs=False)
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with _start(tmp_path, "install_packages bash:bash") as process:
        try:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=0.5)
            assert (tmp_path / "policy-rc.d").exists()
        finally:
            # Whoever waits for it is a process of its own, which nobody kills.
            os.close(held)
        assert process.wait(timeout=30) == 0
    assert not (tmp_path / "policy-rc.d").exists()
