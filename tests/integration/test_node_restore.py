"""Restores that messages ask for: under other names, elsewhere, given up, of nothing at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.bundle import COUNTER, memory
from bench.reports import Counter, Memory, wait_until
from bench.runc import Container
from tests.integration.aftermath import tasks
from tests.integration.lab import Lab
from tests.nodes import Json, Node, container_of, node_on
from tests.servers.nats import NatsServer

pytestmark = [pytest.mark.root, pytest.mark.criu]


def started(lab: Lab) -> Container:
    """A container that counts and can prove that its memory is unchanged."""
    return lab.runc.start(lab.runc.build(COUNTER, memory(8)))


def checkpoint_and_delete(node: Node, container: Container) -> tuple[Json, int]:
    """What came of its checkpoint, and how far it had counted at least."""
    ticks = container.report("counter").read(Counter.TICKS)
    node.ask("taken", checkpoint=container_of(container.id, container.runc.path))
    outcome = node.ready("taken")
    container.delete()
    assert container.status() == "absent"
    forget_life(container)
    return outcome, ticks


def forget_life(container: Container) -> None:
    """Take back what it has written since it was checkpointed, also in a life of moments."""
    for slot in (Counter.TICKS, Counter.RESUMES, Counter.RESUMED_FROM):
        container.report("counter").write(slot, 0)


def assert_goes_on(container: Container, ticks: int) -> None:
    """It counts on from where it was, with the memory that it had."""
    report = container.report("counter")
    report.wait_beyond(Counter.TICKS, ticks + 10)
    assert report.read(Counter.RESUMES) == 1
    assert report.read(Counter.RESUMED_FROM) >= ticks
    container.report("memory").ask(Memory.VERIFY, Memory.VERIFIED)
    assert container.report("memory").read(Memory.FAILURES) == 0


@pytest.mark.parametrize(
    ("request_", "container_id"),
    [
        ({}, "{id}"),
        ({"containerId": "again"}, "again"),
        ({"overrides": {"podName": "moved"}}, "moved-{id}"),
        ({"overrides": {"criuOpts": '{"tcp_close": true}'}, "reason": "nodeTermination"}, "{id}"),
    ],
    ids=["as it was", "container id", "pod name", "options"],
)
def test_it_counts_on_where_it_was(
    lab: Lab, broker: NatsServer, request_: Json, container_id: str
) -> None:
    container = started(lab)
    with node_on(lab.directory, broker, runc_roots=[lab.runc.path]) as node:
        outcome, ticks = checkpoint_and_delete(node, container)
        node.ask("back", restore={"path": outcome["path"], **request_})
        restored = node.ready("back")
        [member] = restored["members"]
        expected = container_id.format(id=container.id)
        assert member["containerId"] == expected
        again = Container(lab.runc, expected, container.bundle)
        assert (again.status(), again.pid()) == ("running", member["pid"])
        assert_goes_on(again, ticks)
        assert node.states("back") == ["initialized", "processing", "ready"]
        assert {event["type"] for event in node.events("back")} == {"restore_pod"}
        node.wait_acknowledged()
        node.assert_idle()


def test_on_another_node(lab: Lab, broker: NatsServer) -> None:
    container = started(lab)
    for name in ("one", "other"):
        (lab.directory / name).mkdir()
    with node_on(lab.directory / "one", broker, runc_roots=[lab.runc.path], name="one") as one:
        outcome, ticks = checkpoint_and_delete(one, container)
        tables: dict[str, dict[str, object]] = {"storage": {"roots": [str(one.daemon.store)]}}
    with node_on(
        lab.directory / "other", broker, runc_roots=[lab.runc.path], name="other", tables=tables
    ) as other:
        root = lab.directory / "runc"
        root.mkdir()
        other.ask("back", restore={"path": outcome["path"], "runcRoot": str(root)})
        try:
            [member] = other.ready("back")["members"]
            assert [each.name for each in root.iterdir()] == [member["containerId"]]
            assert_goes_on(container, ticks)
        finally:
            lab.runc.run("--root", root, "delete", "--force", container.id)


@pytest.mark.parametrize("hook", ["pre-restore", "post-restore"])
def test_given_up_nothing_of_it_is_left(lab: Lab, broker: NatsServer, hook: str) -> None:
    container = started(lab)
    criu, _ = lab.hook(hook)
    env = {"CHECKPOINT_AGENT_CRIU": str(criu.program)}
    with node_on(lab.directory, broker, runc_roots=[lab.runc.path], env=env) as node:
        outcome, ticks = checkpoint_and_delete(node, container)
        node.ask("back", restore={"path": outcome["path"]})
        wait_until(criu.reached, "the restore")
        node.cancel("back")
        wait_until(lambda: bool(node.daemon.lines("giving up")), "the wish being heard")
        criu.release()
        assert node.failure("back")["code"] == "cancelled"
        wait_until(lambda: container.status() == "absent", "the container being gone")
        assert tasks(container) == []
        node.assert_idle()
        node.wait_acknowledged()
        forget_life(container)
        node.ask("again", restore={"path": outcome["path"]})
        node.ready("again")
        assert_goes_on(container, ticks)


@pytest.mark.parametrize("hook", ["pre-restore", "post-restore"])
def test_after_kill_9_all_of_it_runs_or_nothing(lab: Lab, broker: NatsServer, hook: str) -> None:
    container = started(lab)
    criu, _ = lab.hook(hook)
    env = {"CHECKPOINT_AGENT_CRIU": str(criu.program)}
    with node_on(lab.directory, broker, runc_roots=[lab.runc.path], env=env) as node:
        outcome, ticks = checkpoint_and_delete(node, container)
        node.ask("back", restore={"path": outcome["path"]})
        wait_until(criu.reached, "the restore")
        node.daemon.kill()
        criu.release()
        node.start()
        event = node.outcome("back")
        node.assert_idle()
        if event["state"] == "error":
            assert event["failure"]["code"] == "agent_restarted"
            assert tasks(container) == []
            forget_life(container)
            node.ask("again", restore={"path": outcome["path"]})
            node.ready("again")
        assert_goes_on(container, ticks)
        node.wait_acknowledged()


def test_what_cannot_be_restored_is_said(lab: Lab, broker: NatsServer) -> None:
    container = started(lab)
    with node_on(lab.directory, broker, runc_roots=[lab.runc.path]) as node:
        node.ask("taken", checkpoint=container_of(container.id, container.runc.path))
        path = node.ready("taken")["path"]
        stream = next(each for each in node.stored() if each.name.startswith("stream-"))
        refused: dict[str, tuple[Json, str, str]] = {
            "running": ({"path": path}, "already_exists", ""),
            "missing": ({"path": f"{path}x"}, "checkpoint_not_found", ""),
            "prefix": (
                {"path": path, "overrides": {"podName": "../x"}},
                "invalid_argument", "restore.overrides.podName",
            ),
            "options": (
                {"path": path, "overrides": {"criuOpts": '{"root": "/"}'}},
                "invalid_argument", "restore.overrides.criuOpts",
            ),
            "root": ({"path": path, "runcRoot": "runc"}, "invalid_argument", "restore.runcRoot"),
        }  # fmt: skip
        for action_id, (request, code, field) in refused.items():
            node.ask(action_id, restore=request)
            failure = node.failure(action_id)
            assert (failure["code"], failure.get("field", "")) == (code, field), action_id
        container.delete()
        spoil(stream)
        node.ask("damaged", restore={"path": path})
        assert node.failure("damaged")["code"] == "checkpoint_corrupt"
        assert container.status() == "absent"
        assert tasks(container) == []
        node.wait_acknowledged()
        node.assert_idle()


def spoil(path: Path) -> None:
    """Change every byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    for at in range(len(content) // 4, len(content) // 2):
        content[at] ^= 0xFF
    path.write_bytes(content)
