"""A pod that gets another sandbox has begun already: nothing old comes in the place of newer."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.chunks import read_manifest
from agent.host.wrapper.facts import Facts
from agent.host.wrapper.records import Records
from agent.manifest import MANIFEST, Pod, to_bytes
from agent.runtime import begun
from agent.runtime.begun import Begin, Begun
from agent.runtime.sandboxes import Container, Sandboxes
from agent.store.file import FileStore
from agent.targets import PodRef
from tests.checkpoints import replace
from tests.fakes.scripted_worker import ScriptedWorker
from tests.runtime_nodes import ACTION, Client, Node, serving, soon
from tests.scripted_executors import executor
from tests.unit.test_runtime_server import POD


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with executor(tmp_path / "journal", ScriptedWorker()) as acting:
        made = Node(tmp_path, acting)
        async with serving(made):
            yield made


async def _is_cold(client: Client, reason: str) -> None:
    word, content = await client.hear()
    client.leave()
    assert (word, reason in content["reason"]) == ("cold", True), content


@pytest.mark.root
async def test_what_has_come_back_once_goes_on_with_what_it_has(node: Node) -> None:
    path = node.checkpoint(volume=True)
    await (await node.ask(path)).come_back()
    await soon(lambda: node.operations() == [])
    (node.volume / "from-checkpoint").rename(node.volume / "written since")
    for container in ("app", "side"):
        again = await node.ask(path, container, sandbox="s2")
        await _is_cold(again, "has run before, in an earlier sandbox")
    assert os.listdir(node.volume) == ["written since"]
    assert node.record(sandbox="s2")["state"] == "cold"
    # Another pod is another matter.
    await (await node.ask(path, sandbox="s3", uid="u3")).come_back()


async def test_nor_does_it_fail_where_a_cold_start_is_not_wanted(tmp_path: Path) -> None:
    async with executor(tmp_path / "journal", ScriptedWorker()) as acting:
        node = Node(tmp_path, acting, fallback="fail")
        async with serving(node):
            path = node.checkpoint()
            await (await node.ask(path)).come_back()
            again = await node.ask(path, sandbox="s2")
            await _is_cold(again, "has run before")


async def test_one_that_has_started_cold_has_begun_too(node: Node) -> None:
    """What it asked for may be there by then."""
    await _is_cold(await node.ask(f"{node.directory}/store/sample"), "no checkpoint")
    path = node.checkpoint()
    await _is_cold(await node.ask(path, sandbox="s2"), "has run before")


async def test_one_of_which_nothing_has_come_back_is_tried_again(node: Node) -> None:
    path = node.checkpoint()
    # What the checkpoint has not is no decision.
    await _is_cold(await node.ask(path, "init"), "is none of app, side")
    killed = await node.ask(path)
    await killed.until_run()
    killed.leave()
    await soon(lambda: node.record()["state"] == "failed")
    await (await node.ask(path, sandbox="s2")).come_back()


async def test_nothing_is_left_in_run_after_a_restart_of_the_machine(node: Node) -> None:
    path = node.checkpoint()
    await (await node.ask(path)).come_back()
    await node.server.stop(1.0)
    shutil.rmtree(node.directory / "restores")
    node.server = node.new_server()
    await node.server.start()
    await _is_cold(await node.ask(path, sandbox="s2"), "has run before")


def _changed(node: Node, uid: str, hours: float) -> None:
    """Have the checkpoint be of a pod, made that long from now, by the name `nightly`."""
    store = FileStore(node.directory / "store")
    made = (datetime.now(UTC) + timedelta(hours=hours)).isoformat(timespec="milliseconds")
    pod = Pod(uid=uid, namespace="default", name="web")
    manifest = read_manifest(store, "sample").model_copy(
        update={"name": "nightly", "created_at": made, "pod": pod}
    )
    replace(store, f"sample/{MANIFEST}", to_bytes(manifest))


@pytest.mark.parametrize(
    ("uid", "hours", "action", "reason"),
    [
        ("u1", 1, "", None),
        ("u1", -1, "", "is no later one of it"),
        # A replica that has the same name.
        ("u0", 1, "", "is no later one of it"),
        # What the API has made is one restore.
        ("u1", 1, ACTION, "is restored into it once"),
    ],
)
async def test_by_name_from_what_it_has_been_since(
    node: Node, uid: str, hours: float, action: str, reason: str | None
) -> None:
    node.checkpoint()
    _changed(node, "u0", -2)
    await (await node.ask("nightly")).come_back()
    _changed(node, uid, hours)
    client = await node.ask("nightly", action=action, sandbox="s2")
    if reason:
        return await _is_cold(client, reason)
    await client.come_back()
    # The next one of its containers has the same one; the same pod, later, something later again.
    await (await node.ask("nightly", "side", sandbox="s2")).come_back()
    _changed(node, uid, -0.5)
    await _is_cold(await node.ask("nightly", sandbox="s3"), "is no later one of it")


async def test_by_a_name_that_is_gone(node: Node) -> None:
    node.checkpoint()
    _changed(node, "u0", -2)
    await (await node.ask("nightly")).come_back()
    FileStore(node.directory / "store").delete(f"sample/{MANIFEST}")
    await _is_cold(await node.ask("nightly", sandbox="s2"), "has no checkpoint since")


async def test_what_an_agent_was_killed_before_it_could_write_down(tmp_path: Path) -> None:
    """What comes back runs before that is known."""
    known = Begun(tmp_path / "begun")
    sandboxes = Sandboxes(tmp_path / "restores", "cold", known)
    sandboxes.load()
    sandbox = sandboxes.of("s1", PodRef("u1", "default", "web"))
    sandbox.keep()
    sandbox.note("app", Container(state="restoring", container_id="c1", root=str(tmp_path)))
    assert known.of("u1") is None
    (tmp_path / "c1").mkdir()
    (tmp_path / "c1" / "checkpoint-restored").touch()
    Sandboxes(tmp_path / "restores", "cold", known).load()
    begin = known.of("u1")
    assert begin is not None
    assert begin.sandbox == "s1"


async def test_what_was_decided_without_an_agent(node: Node, tmp_path: Path) -> None:
    """By a `checkpoint-runc`, which knows whose container it is."""
    await node.server.stop(1.0)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "config.json").write_text(json.dumps({"annotations": POD}))
    Records(str(tmp_path / "restores"), Facts(str(bundle))).note_cold("c1", "no agent listens")
    node.server = node.new_server()
    await node.server.start()
    await _is_cold(await node.ask(node.checkpoint(), sandbox="s2"), "has run before")


def _begin(at: float = 1.0, sandbox: str = "s1", directory: str = "") -> Begin:
    return Begin(sandbox=sandbox, at=at, directory=directory)


def test_it_is_kept_while_there_is_the_pod(tmp_path: Path) -> None:
    known, pods = Begun(tmp_path / "state" / "begun"), tmp_path / "pods"
    for uid in ("there", "gone"):
        (pods / uid).mkdir(parents=True)
        known.note(uid, _begin(directory=str(pods / uid)))
    known.note("unknown", _begin())
    (pods / "gone").rmdir()
    # Kubelet's is perhaps a file system of its own, that is not there yet.
    known.note("unmounted", _begin(directory="/nonexistent/pods/unmounted"))
    known.note("last", _begin())
    kept = [uid for uid in ("there", "gone", "unknown", "unmounted", "last") if known.of(uid)]
    assert kept == ["there", "unknown", "unmounted", "last"]


def test_the_oldest_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(begun, "_MOST", 3)
    known = Begun(tmp_path)
    for number in range(5):
        known.note(f"u{number}", _begin(number))
    assert [known.of(f"u{number}") is not None for number in range(5)] == [False] * 2 + [True] * 3


@pytest.mark.parametrize("uid", ["", ".", "..", "../x", "a/b", "x" * 300, ".new"])
def test_what_is_no_uid_is_no_file(tmp_path: Path, uid: str) -> None:
    known = Begun(tmp_path / "begun")
    known.note(uid, _begin())
    assert known.of(uid) is None
    assert not (tmp_path / "begun").exists()


def test_it_is_of_its_last_sandbox(tmp_path: Path) -> None:
    """Whichever an agent comes upon first when it starts."""
    known = Begun(tmp_path)
    known.note("u1", _begin(2.0))
    known.note("u1", _begin(3.0))
    assert known.of("u1") == _begin(2.0)
    known.note("u1", _begin(4.0, "s2"))
    known.note("u1", _begin(3.0))
    assert known.of("u1") == _begin(4.0, "s2")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"sandbox": 1}', b"\xff", b"[" * 99_999])
def test_files_that_say_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "u1").write_bytes(content)
    assert Begun(tmp_path).of("u1") is None
