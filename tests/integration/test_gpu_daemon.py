"""A daemon that is killed while processes are off their GPUs: they compute on, and it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.bundle import COUNTER
from bench.reports import wait_until
from tests.cli_process import run_cli
from tests.gpus import add_gpu_processes, fake_gpus, gpu_processes_of
from tests.integration.aftermath import assert_unharmed
from tests.integration.lab import Lab
from tests.integration.test_daemon_stops import begin, daemon_of, nothing_under_way, outcome

pytestmark = [pytest.mark.root, pytest.mark.criu]


@pytest.mark.parametrize("thaw", ["ExecStopPost", "next start"])
async def test_after_kill_9_all_compute_on(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, thaw: str
) -> None:
    gpus = fake_gpus(tmp_path / "driver")
    # The daemon's, and that of `thaw`.
    monkeypatch.setenv("CHECKPOINT_AGENT_CUDA_LIBRARIES", str(gpus.libraries))
    bundle = lab.runc.build(COUNTER)
    add_gpu_processes(gpus, bundle, 2)
    container = lab.runc.start(bundle)
    first, second = gpu_processes_of(container.pid())
    first.suffer("checkpoint slow 60000")
    with daemon_of(lab, stop_seconds=1) as daemon:
        await begin(daemon, container)
        wait_until(lambda: not second.has_device, "one being off its GPU")
        daemon.kill()
        first.recover()
        second.stands_still()
        if thaw == "ExecStopPost":
            done = run_cli("thaw", "--all", "--state-dir", str(lab.state_dir))
            assert done.returncode == 0, done.stderr
            for process in (first, second):
                process.goes_on()
        daemon.start()
        daemon.wait_ready()
        action = await outcome(daemon)
        assert action.event.failure is not None
        assert action.event.failure.code == "agent_restarted"
        wait_until(lambda: nothing_under_way(lab), "everything being cleaned up")
        for process in (first, second):
            process.goes_on()
        assert_unharmed(container)
        assert daemon.stop() == 0
