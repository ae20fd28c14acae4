"""The command line as the client of a server: the same documents and exit codes as without."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.cli.agent_commands import parse_duration
from agent.errors import Cancelled, InvalidArgument
from agent.messages.model import CheckpointSpec, RestoreSpec
from agent.store.file import FileStore
from agent.targets import Kind, PodRef, ProcessTarget, RuncTarget
from tests.checkpoints import write_checkpoint
from tests.cli_process import environment, only_document, run_cli, start_cli
from tests.rpc_servers import Certificates, Running, certificates_in, running, settings_in
from tests.waiting import eventually_async

IMAGES = {"inventory.img": b"abc", "pages-1.img": bytes(1 << 20)}


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Running]:
    """A server in front of an executor that holds what is not called ``quick``."""
    async with running(settings_in(tmp_path)) as made:
        yield made


async def cli(
    agent: Running, *words: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The command line with this agent."""
    return await asyncio.to_thread(run_cli, *words, "--agent", agent.address, env=env)


async def document(agent: Running, *words: str, code: int = 0) -> Any:  # noqa: ANN401 - JSON
    """What a command prints with ``-o json``; it exits with ``code``."""
    done = await cli(agent, *words, "-o", "json")
    assert done.returncode == code, done
    return only_document(done.stdout)


async def last_spec(agent: Running) -> CheckpointSpec | RestoreSpec:
    """What the newest action asks for."""
    return (await agent.executor.list(limit=1))[0].request.spec


async def test_a_checkpoint_is_shown_as_the_local_one_is(agent: Running) -> None:
    told = await document(agent, "checkpoint", "quick", "--name", "nightly")
    assert told["path"] == f"memory://held/{told['checkpoint_id']}"
    assert (told["name"], told["frozen_seconds"], told["stopped"]) == ("nightly", 0.25, False)
    assert (told["cuda_seconds"], told["gpus"]) == (0.125, ["NVIDIA H100"])
    assert told["action_id"] == (await agent.executor.list())[0].action_id
    with start_cli("checkpoint", "slow", "--agent", agent.address) as process:
        assert process.stderr is not None
        # Where it is, before it is done.
        assert await asyncio.to_thread(process.stderr.readline)
        agent.worker.release.set()
        out, _ = await asyncio.to_thread(process.communicate)
    assert process.returncode == 0
    assert out.startswith("Checkpointed, still running.")


async def test_what_is_asked_for_is_what_was_typed(agent: Running) -> None:
    store = {"CHECKPOINT_AGENT_STORE": "/somewhere/local"}
    await cli(agent, "checkpoint", "--pod", "default/quick", "--kind", "rootfs", env=store)
    spec = await last_spec(agent)
    assert isinstance(spec, CheckpointSpec)
    assert (spec.target, spec.kind) == (PodRef(namespace="default", name="quick"), Kind.ROOTFS)
    # Defaults are the agent's own, and the environment is this machine's.
    assert spec.overrides == type(spec.overrides)()
    options = ("--streams", "2", "--compression", "lz4", "--tcp-established", "--file-locks")
    await cli(agent, "checkpoint", "quick", "--runc-root", "/r", "--store", "/s/x", *options)
    spec = await last_spec(agent)
    assert isinstance(spec, CheckpointSpec)
    assert spec.target == RuncTarget("quick", Path("/r"))
    given = spec.overrides
    assert (given.streams, given.compression, given.directory) == (2, "lz4", "/s/x")
    assert given.criu_opts == '{"tcp_established": true, "file_locks": true}'


async def test_what_is_said_of_connections_is_said_in_crius_words(agent: Running) -> None:
    agent.worker.release.set()
    await cli(agent, "checkpoint", "quick", "--tcp", "skip-in-flight")
    spec = await last_spec(agent)
    keeping = '{"tcp_established": true, "tcp_close": false, "tcp_skip_in_flight": true}'
    assert spec.overrides.criu_opts == keeping
    await cli(agent, "restore", "memory://held/1", "--tcp", "close")
    spec = await last_spec(agent)
    giving_up = '{"tcp_established": false, "tcp_close": true, "tcp_skip_in_flight": true}'
    assert isinstance(spec, RestoreSpec)
    assert spec.overrides.criu_opts == giving_up
    await cli(agent, "restore", "memory://held/1")
    assert (await last_spec(agent)).overrides.criu_opts is None


async def test_a_process_and_a_pods_uid_are_targets_too(agent: Running) -> None:
    agent.worker.release.set()
    await cli(agent, "checkpoint", "--pid", "4711")
    spec = await last_spec(agent)
    assert isinstance(spec, CheckpointSpec)
    assert spec.target == ProcessTarget(4711)
    await cli(agent, "checkpoint", "--pod", "0123-4567")
    spec = await last_spec(agent)
    assert isinstance(spec, CheckpointSpec)
    assert spec.target == PodRef(uid="0123-4567")


async def test_a_restore(agent: Running) -> None:
    told = await document(agent, "restore", "/quick/one", "--id", "again", "--bundle", "/b")
    assert (told["target"], told["pid"], told["kind"]) == ("counter", 4711, "runc")
    spec = await last_spec(agent)
    assert isinstance(spec, RestoreSpec)
    assert (spec.path, spec.container_id, spec.bundle) == ("/quick/one", "again", "/b")
    assert told["not_restored"] == ["volumes/data"]
    said = (await cli(agent, "restore", "/quick/two")).stdout
    assert "not restored  volumes/data" in said


async def test_errors_have_the_local_commands_exit_codes(agent: Running, tmp_path: Path) -> None:
    for words, code, name in (
        (("checkpoint", "missing"), 4, "target_not_found"),
        (("checkpoint", "quick", "--stop"), 2, "invalid_argument"),
        (("checkpoint", "quick", "--frozen-limit", "9"), 2, "invalid_argument"),
        (("checkpoint",), 2, "invalid_argument"),
        (("verify", f"{tmp_path}/store/none"), 10, "checkpoint_not_found"),
        (("verify", "/etc/none"), 2, "invalid_argument"),
        (("actions", "show", "none"), 10, "action_not_found"),
        (("thaw", "none"), 10, "freeze_not_found"),
        (("freeze", "none", "--for", "1s"), 4, "target_not_found"),
        (("freeze", "none", "--for", "soon"), 2, "invalid_argument"),
    ):
        error = (await document(agent, *words, code=code))["error"]
        assert (error["code"], error["exit_code"]) == (name, code), words


async def test_ctrl_c_gives_the_action_up_and_waits_for_the_rollback(agent: Running) -> None:
    with start_cli("checkpoint", "slow", "-o", "json", "--agent", agent.address) as process:
        await eventually_async(lambda: agent.worker.begun)
        process.send_signal(signal.SIGINT)
        await eventually_async(lambda: agent.worker.rolling_back)
        assert process.poll() is None
        agent.worker.release.set()
        out, _ = await asyncio.to_thread(process.communicate)
    error = only_document(out)["error"]
    assert (process.returncode, error["code"]) == (130, "interrupted")
    assert error["state"].startswith("rolled back")
    assert len(agent.worker.rolled_back) == 1


async def test_what_is_complete_in_spite_of_ctrl_c_is_told(agent: Running) -> None:
    with start_cli("checkpoint", "finishing", "-o", "json", "--agent", agent.address) as process:
        await eventually_async(lambda: agent.worker.begun)
        process.send_signal(signal.SIGINT)
        await eventually_async(lambda: agent.worker.rolling_back)
        agent.worker.release.set()
        out, _ = await asyncio.to_thread(process.communicate)
    assert process.returncode == 0
    assert only_document(out)["checkpoint_id"] == agent.worker.begun[0]


async def test_an_agent_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    async with running(settings_in(tmp_path)) as agent:
        with start_cli("checkpoint", "slow", "-o", "json", "--agent", agent.address) as process:
            await eventually_async(lambda: agent.worker.begun)
            await agent.server.stop(0)
            out, _ = await asyncio.to_thread(process.communicate)
        assert process.returncode == 17
        assert only_document(out)["error"]["code"] == "agent_unreachable"
        error = (await document(agent, "node", code=17))["error"]
        assert "No such file" in error["message"]


async def test_listing_inspecting_verifying_deleting(agent: Running, tmp_path: Path) -> None:
    store = FileStore(tmp_path / "store")
    write_checkpoint(store, IMAGES, checkpoint_id="one")
    path = f"{store.url}/one"
    for words in (("inspect", path), ("list", "--store", store.url)):
        local = await asyncio.to_thread(run_cli, *words, "-o", "json")
        assert await document(agent, *words) == only_document(local.stdout)
        assert (await cli(agent, *words)).stdout == (
            await asyncio.to_thread(run_cli, *words)
        ).stdout
    assert (await document(agent, "list"))["store"] == store.url
    assert (await document(agent, "verify", path))["images"] == 2
    assert (await document(agent, "delete", path, code=2))["error"]["code"] == "invalid_argument"
    assert await document(agent, "delete", path, "--yes") == {"deleted": path}
    assert store.directories() == []


async def test_actions(agent: Running) -> None:
    await cli(agent, "checkpoint", "missing")
    with start_cli("checkpoint", "slow", "--agent", agent.address) as process:
        await eventually_async(lambda: agent.worker.begun)
        action_id = agent.worker.begun[0]
        listed = (await document(agent, "actions"))["actions"]
        assert [one["state"] for one in listed] == ["processing", "error"]
        assert listed[1]["failure"]["code"] == "target_not_found"
        errors = (await document(agent, "actions", "--state", "error", "--limit", "5"))["actions"]
        assert errors == listed[1:]
        assert (await document(agent, "actions", "show", action_id))["action_id"] == action_id
        assert action_id in (await cli(agent, "actions")).stdout
        cancelling = asyncio.ensure_future(document(agent, "actions", "cancel", action_id))
        await eventually_async(lambda: agent.worker.rolling_back)
        agent.worker.release.set()
        assert (await cancelling)["failure"]["code"] == "cancelled"
        assert await asyncio.to_thread(process.wait) == Cancelled.exit_code
    wrong = await cli(agent, "actions", "--limit", "3", "show", action_id)
    assert wrong.returncode == 2


async def test_the_node(agent: Running) -> None:
    node = await document(agent, "node")
    assert (node["node"], node["queued"], node["gpus"][0]["memory"]) == ("node", 2, 80 << 30)
    pods = (await document(agent, "pods", "--namespace", "default"))["pods"]
    assert [pod["ref"]["name"] for pod in pods] == ["web"]
    assert "web" in (await cli(agent, "pods")).stdout
    # The address may also come from the environment.
    env = {"CHECKPOINT_AGENT_ADDRESS": agent.address}
    done = await asyncio.to_thread(run_cli, "node", env=env)
    assert done.returncode == 0
    assert "H100 80.0 GiB" in done.stdout


async def test_over_tls(tmp_path: Path) -> None:
    made: Certificates = certificates_in(tmp_path)
    async with running(settings_in(tmp_path, **made.rpc())) as agent:
        address = f"127.0.0.1:{agent.server.port}"
        words = [
            "node",
            "-o",
            "json",
            "--agent",
            address,
            "--agent-tls-cert",
            str(made.client.cert),
        ]
        words += ["--agent-tls-key", str(made.client.key)]
        done = await asyncio.to_thread(run_cli, *words, "--agent-tls-ca", str(made.authority.path))
        assert only_document(done.stdout)["node"] == "node"
        done = await asyncio.to_thread(run_cli, *words)
        assert done.returncode == 2
        assert "--agent-tls-ca" in only_document(done.stdout)["error"]["message"]


@pytest.mark.parametrize("address", ["nonsense", "unix:" + "x" * 200, "host:port"])
async def test_an_address_that_is_none(address: str) -> None:
    done = await asyncio.to_thread(run_cli, "node", "--agent", address, "-o", "json")
    assert done.returncode == 2
    assert only_document(done.stdout)["error"]["fields"]["argument"] == "--agent"


def test_durations() -> None:
    given = ("500ms", "30s", "1.5m", "7")
    assert [parse_duration(text) for text in given] == [0.5, 30.0, 90.0, 7.0]
    for text in ("", "s", "-1s", "1h", "1 s", "1e3"):
        with pytest.raises(InvalidArgument):
            parse_duration(text)


def test_local_commands_do_not_load_grpc() -> None:
    program = (
        "import sys; from agent.cli import main; main(['list', '--store', '/nowhere']); "
        "assert not any(name.split('.')[0] == 'grpc' for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env=environment())
