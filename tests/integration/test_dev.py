"""`checkpoint-agent dev`: one command, a checkpoint over HTTP, and nothing is left of it."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bench.leftovers import mounts_below
from bench.reports import Counter, wait_until
from bench.runc import Container, RuncRoot
from tests.cli_process import run_cli
from tests.dev_runs import Dev, dev_in, modes
from tests.integration.aftermath import assert_unharmed, stood_still
from tests.integration.lab import Lab
from tests.runc_pods import run_container, uid_of

pytestmark = [pytest.mark.root, pytest.mark.criu]

WEB = {"namespace": "default", "pod_name": "web"}


def checkpoint(dev: Dev) -> str:
    """Ask for one of the pod; the action's id."""
    dev.wait_pod("web")
    return dev.post("/v2/checkpoint/pod", WEB)


def pod_of_two(runc: RuncRoot) -> list[Container]:
    """The pod, of two containers that stand still together."""
    return [run_container(runc, "web", name) for name in ("app", "sidecar")]


def test_from_nothing_to_a_checkpoint_and_back(runc: RuncRoot, tmp_path: Path) -> None:
    container = run_container(runc, "web")
    directory = tmp_path / "dev"
    with dev_in(directory, runc.path) as dev:
        document = dev.document
        assert document["directory"] == str(directory)
        assert document["store"] == f"file://{directory}/checkpoints"
        page = dev.get("/", token="")
        assert (page.status, "<html" in page.text) == (401, True)
        assert sorted(dev.get("/session").json()["scopes"]) == ["checkpoint", "read", "restore"]
        ports = {conn.laddr for part in dev.parts() for conn in part.net_connections("inet")}
        assert urlsplit(document["url"]).port in {port.port for port in ports}
        # Only this machine reaches any of them.
        assert {port.ip for port in ports} == {"127.0.0.1"}
        # No secret on a command line.
        secrets = [document["token"], (directory / "broker-token").read_text()]
        words = [word for part in dev.parts() for word in part.cmdline()]
        assert not [word for word in words for secret in secrets if secret in word]

        action = dev.wait_state(checkpoint(dev), "ready")
        assert Path(action["details"]["path"].removeprefix("file://")).parent == (
            directory / "checkpoints"
        )
        assert_unharmed(container)
        assert modes(directory) <= {(True, 0o700), (False, 0o600), (False, 0o700)}

        code, more, said = dev.end(signal.SIGINT)
        assert (code, more) == (130, "")
        assert said.startswith("SIGINT: stopping, in order\n")
        assert dev.parts() == []
        assert not (directory / "agent.sock").exists()
        assert list(mounts_below(directory)) == []
    assert_unharmed(container)

    with dev_in(directory, runc.path) as dev:
        # Somebody else's by now.
        assert dev.get("/v2/nodes", token=document["token"]).status == 401
        [kept] = dev.get("/v2/actions").json()
        assert kept["action_id"] == action["action_id"]
        container.delete()
        container.report("counter").write(Counter.RESUMES, 0)
        restored = dev.post(
            "/v2/restore/pod", {"action_id": action["action_id"], "reason": "manual"}
        )
        dev.wait_state(restored, "ready")
        assert dev.get(f"/v2/actions/from_pod/{uid_of('web')}").status == 200
        assert dev.end(signal.SIGTERM)[0] == 143
    # What was restored is nobody's but its own.
    container.report("counter").wait_beyond(Counter.RESUMES, 0)
    assert container.status() == "running"


@pytest.mark.parametrize("name", ["broker", "daemon", "api"])
def test_a_part_that_ends_takes_all_of_it_down_and_is_named(
    runc: RuncRoot, tmp_path: Path, name: str
) -> None:
    with dev_in(tmp_path / "dev", runc.path) as dev:
        dev.part(name).kill()
        code, printed, _ = dev.ended()
        error = json.loads(printed)["error"]
        assert (code, error["code"], error["exit_code"]) == (20, "part_failed", 20)
        assert name in error["message"]
        assert "SIGKILL" in error["message"]
        assert error["fields"]["log"] == dev.document["logs"][name]
        # Of each the last lines say that it was ready.
        assert "ready" in error["fields"]["log_tail"].lower()
        assert dev.parts() == []


def test_kill_9_takes_the_parts_along_and_leaves_nothing_frozen(lab: Lab) -> None:
    pod = pod_of_two(lab.runc)
    criu, _ = lab.hook("post-dump")
    env = {"CHECKPOINT_AGENT_CRIU": str(criu.program)}
    directory = lab.directory / "dev"
    with dev_in(directory, lab.runc.path, env) as dev:
        action = checkpoint(dev)
        wait_until(criu.reached, "the dump")
        for container in pod:
            wait_until(stood_still(container, 0.2), "the pod standing still")
        dev.process.kill()
        criu.release()
        dev.wait_gone()
        for container in pod:
            assert_unharmed(container)
    with dev_in(directory, lab.runc.path) as dev:
        # It either was done in the time that the daemon had, or was given up.
        wait_until(
            lambda: dev.get(f"/v2/actions/{action}").json()["status"] in ("ready", "error"),
            "the action having ended",
        )
    for container in pod:
        assert_unharmed(container)


def test_the_daemon_s_kill_9_in_the_middle_of_a_checkpoint_leaves_nothing_frozen(lab: Lab) -> None:
    pod = pod_of_two(lab.runc)
    criu, _ = lab.hook("post-dump")
    env = {"CHECKPOINT_AGENT_CRIU": str(criu.program)}
    with dev_in(lab.directory / "dev", lab.runc.path, env) as dev:
        checkpoint(dev)
        wait_until(criu.reached, "the dump")
        for container in pod:
            wait_until(stood_still(container, 0.2), "the pod standing still")
        dev.part("daemon").kill()
        criu.release()
        assert dev.ended()[0] == 20
        assert dev.parts() == []
        for container in pod:
            assert_unharmed(container)


def test_ctrl_c_before_it_is_ready(runc: RuncRoot, tmp_path: Path) -> None:
    with dev_in(tmp_path / "dev", runc.path, ready=False) as dev:
        wait_until(lambda: (tmp_path / "dev" / "daemon.log").exists(), "the daemon being started")
        code, printed, _ = dev.end(signal.SIGINT)
        assert (code, json.loads(printed)["error"]["code"]) == (130, "interrupted")
        assert dev.parts() == []


def test_one_at_a_time_works_in_a_directory(runc: RuncRoot, tmp_path: Path) -> None:
    directory = tmp_path / "dev"
    with dev_in(directory, runc.path) as dev:
        where = ("--directory", str(directory), "--runc-root", str(runc.path))
        second = run_cli("dev", *where, "--port", "0", "-o", "json")
        error = json.loads(second.stdout)["error"]
        assert (second.returncode, error["code"]) == (6, "already_running")
        assert dev.get("/readyz").status == 200
        assert dev.end()[0] == 130
