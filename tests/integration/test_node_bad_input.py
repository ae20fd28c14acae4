"""What cannot be done is answered with the field that is wrong, and the node goes on."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.reports import wait_until
from bench.runc import Container, RuncRoot, runc_root
from tests.cli_process import run_cli
from tests.integration.aftermath import assert_unharmed
from tests.nodes import Json, Node, node_on
from tests.runc_pods import named, run_container, uid_of
from tests.servers.nats import NatsServer, nats_server

pytestmark = [pytest.mark.root, pytest.mark.criu]

MIB = 1 << 20


@dataclass(frozen=True)
class Site:
    """A node with one good pod, and one name that two pods have."""

    node: Node
    good: Container


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    with ExitStack() as stack:
        runc = stack.enter_context(runc_root())
        broker = stack.enter_context(nats_server(directory))
        good = run_container(runc, "good")
        for number in range(2):
            run_container(runc, "twin", uid=uid_of(f"twin-{number}"))
        yield Site(stack.enter_context(node_on(directory, broker, runc_roots=[runc.path])), good)


def overriding(**overrides: object) -> Json:
    """A checkpoint of the good pod with one override."""
    return {"checkpoint": {**named("good"), "overrides": overrides}}


def with_opts(**options: object) -> Json:
    """The same, with one option for CRIU."""
    return overriding(criuOpts=json.dumps(options))


# An action, the error's code, the field, and what its message has to say.
REFUSED: dict[str, tuple[Json, str, str, str]] = {
    "no target": ({"checkpoint": {}}, "invalid_argument", "checkpoint", "pod"),
    "no action": ({}, "invalid_argument", "action", "checkpoint"),
    "a wrong type": (
        {"checkpoint": {**named("good"), "name": 5}},
        "invalid_argument", "checkpoint.name", "string",
    ),
    "an unknown kind": (
        {"checkpoint": {**named("good"), "kind": "all"}},
        "invalid_argument", "checkpoint.kind", "all",
    ),
    "a kind of the future": (
        {"checkpoint": {**named("good"), "kind": 77}},
        "invalid_argument", "checkpoint.kind", "77",
    ),
    "an unknown field": (
        {"checkpoint": {**named("good"), "speed": 1}},
        "invalid_argument", "checkpoint.speed", "speed",
    ),
    "a pod without a namespace": (
        {"checkpoint": {"pod": {"name": "good"}}},
        "invalid_argument", "checkpoint.pod", "namespace",
    ),
    "an unknown pod": ({"checkpoint": named("goo")}, "pod_not_found", "", "goo"),
    "an unknown uid": (
        {"checkpoint": {"pod": {"uid": uid_of("nobody")}}},
        "pod_not_found", "", uid_of("nobody"),
    ),
    "a uid of another pod": (
        {"checkpoint": {"pod": {"uid": uid_of("twin-0"), "namespace": "default", "name": "good"}}},
        "pod_not_found", "", uid_of("twin-0"),
    ),
    "a name of two pods": ({"checkpoint": named("twin")}, "pod_ambiguous", "", "twin"),
    "a directory of the machine": (
        overriding(directory="/etc/checkpoints"),
        "invalid_argument", "checkpoint.overrides.directory", "roots",
    ),
    "another scheme": (
        overriding(directory="ftp://somewhere/else"),
        "invalid_argument", "checkpoint.overrides.directory", "ftp",
    ),
    "a forbidden option": (
        with_opts(tcp_established=True, exec_cmd=["/bin/sh"]),
        "invalid_argument", "checkpoint.overrides.criuOpts", "exec_cmd",
    ),
    "the images' directory": (
        with_opts(images_dir_fd=3), "invalid_argument", "checkpoint.overrides.criuOpts",
        "images_dir_fd",
    ),
    "to stop the containers": (
        with_opts(leave_running=False), "invalid_argument", "checkpoint.overrides.criuOpts",
        "leave_running",
    ),
    "options that are no JSON": (
        overriding(criuOpts="--tcp-established"),
        "invalid_argument", "checkpoint.overrides.criuOpts", "JSON",
    ),
    "an unknown compression": (
        overriding(compression="gzip"),
        "invalid_argument", "checkpoint.overrides.compression", "gzip",
    ),
    "a level too many": (
        overriding(compression="zstd:99"),
        "invalid_argument", "checkpoint.overrides.compression", "99",
    ),
    "65 streams": (
        overriding(streams=65), "invalid_argument", "checkpoint.overrides.streams", "65",
    ),
    "fewer than no stream": (
        overriding(streams=-1), "invalid_argument", "checkpoint.overrides.streams", "-1",
    ),
    "half a stream": (
        overriding(streams=1.5), "invalid_argument", "checkpoint.overrides.streams", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_checkpoint_that_cannot_be(site: Site, case: str) -> None:
    action, code, field, said = REFUSED[case]
    action_id = f"a-{uuid.uuid4()}"
    site.node.publish(json.dumps({"actionId": action_id, **action}).encode())
    failure = site.node.failure(action_id)
    assert (failure["code"], failure.get("field", "")) == (code, field), failure
    assert said in failure["message"]
    # Nothing was touched: it never came to that.
    assert "processing" not in site.node.states(action_id)
    assert_node_works(site)


def test_a_restore_from_elsewhere(site: Site) -> None:
    for path in ("/etc/passwd", "file:///var/lib/c1", f"{site.node.daemon.store}/../../c1"):
        action_id = f"a-{uuid.uuid4()}"
        site.node.ask(action_id, restore={"path": path})
        failure = site.node.failure(action_id)
        assert (failure["code"], failure["field"]) == ("invalid_argument", "restore.path"), path
    assert_node_works(site)


# Bytes with a readable id, and the field that is named.
UNREADABLE = {
    "half of a message": (b'{"actionId": "ID", "checkpoint": {"pod"', "message"),
    "no object": (b'{"actionId": "ID", "checkpoint": "all"}', "checkpoint"),
    "5 MiB": (
        b'{"actionId": "ID", "checkpoint": {"name": "' + bytes(5 * MIB).replace(b"\0", b"x")
        + b'"}}',
        "message",
    ),
    "too deep": (b'{"actionId": "ID", "checkpoint": ' + b'{"pod": ' * 5000, "message"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNREADABLE)
def test_bytes_that_are_no_action(site: Site, case: str) -> None:
    payload, field = UNREADABLE[case]
    action_id = f"a-{uuid.uuid4()}"
    site.node.publish(payload.replace(b"ID", action_id.encode()))
    failure = site.node.failure(action_id)
    assert (failure["code"], failure["field"]) == ("invalid_argument", field)
    assert len(failure["message"]) < 2000
    assert_node_works(site)


NOBODY = {
    "no id": json.dumps({"checkpoint": named("good")}).encode(),
    "an empty id": json.dumps({"actionId": "", "checkpoint": named("good")}).encode(),
    "an id that is a path": b'{"actionId": "../../etc", "checkpoint": {}}',
    "an id with a wildcard": b'{"actionId": "a.>", "checkpoint": {}}',
    "nothing": b"",
    "noise": bytes(range(256)),
    "5 MiB of noise": bytes(range(256)) * (5 * MIB // 256),
}


@pytest.mark.parametrize("case", NOBODY)
def test_bytes_that_nobody_can_be_answered_for(site: Site, case: str) -> None:
    before = len(site.node.daemon.lines("message refused"))
    site.node.publish(NOBODY[case])
    # It is said, to whoever reads the log.
    said = site.node.daemon.lines
    wait_until(lambda: len(said("message refused")) > before, "the message being refused")
    assert_node_works(site)


def assert_node_works(site: Site) -> None:
    """All is acknowledged, nothing was left, and the good pod was not touched."""
    site.node.wait_acknowledged()
    site.node.assert_idle()
    assert site.node.stored() == []
    assert site.good.status() == "running"


def test_after_all_that_a_good_action_is_done(site: Site) -> None:
    site.node.ask("good", checkpoint=named("good"))
    assert run_cli("verify", site.node.ready("good")["path"]).returncode == 0
    assert_unharmed(site.good)
    assert [one["event"] for one in errors(site.node)] == []


def errors(node: Node) -> list[Json]:
    """What the daemon has logged as an error: something of its own, not of a request's."""
    lines = [json.loads(line) for line in node.daemon.log.read_text().splitlines()]
    return [line for line in lines if line["level"] in ("error", "critical")]


def test_of_two_nodes_only_the_one_asked_answers(
    runc: RuncRoot, broker: NatsServer, tmp_path: Path
) -> None:
    with runc_root() as far_root, ExitStack() as stack:
        run_container(runc, "here")
        nodes = []
        for name, root in (("near", runc), ("far", far_root)):
            (tmp_path / name).mkdir()
            nodes.append(
                stack.enter_context(
                    node_on(tmp_path / name, broker, runc_roots=[root.path], name=name)
                )
            )
        near, far = nodes
        near.ask("a-1", checkpoint=named("here"))
        far.ask("a-2", checkpoint=named("here"))
        assert near.ready("a-1")["containers"] == ["app"]
        assert far.failure("a-2")["code"] == "pod_not_found"
        assert {event["node"] for event in near.events("a-1")} == {"near"}
        assert {event["node"] for event in near.events("a-2")} == {"far"}
        for node in nodes:
            node.wait_acknowledged()
