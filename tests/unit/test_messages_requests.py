"""Requests from outside: what is taken, and which field an error names."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import InvalidArgument
from agent.messages.model import (
    ActionRequest,
    ActionType,
    CheckpointOverrides,
    CheckpointSpec,
    RestoreOverrides,
    RestoreSpec,
)
from agent.messages.requests import (
    MAX_REQUEST,
    from_json,
    message_of,
    request_from,
    to_json,
)
from agent.pb.checkpoint_agent.v1 import actions_pb2 as pb
from agent.targets import Kind, PodRef, ProcessTarget, RuncTarget

POD = PodRef(uid="8f2c", namespace="default", name="web-1")

REQUESTS = {
    "pod": ActionRequest("a-1", CheckpointSpec(POD)),
    "pod by name": ActionRequest("a-2", CheckpointSpec(replace(POD, uid=""))),
    "container": ActionRequest("a-3", CheckpointSpec(RuncTarget("web", Path("/run/other")))),
    "process": ActionRequest("a-4", CheckpointSpec(ProcessTarget(4242))),
    "everything": ActionRequest(
        "a-5",
        CheckpointSpec(
            POD,
            Kind.ROOTFS,
            "heartbeat",
            "nightly",
            CheckpointOverrides(False, "zstd:3", '{"tcp_close": true}', "file:///srv/images", 8),
        ),
    ),
    "restore": ActionRequest("a-6", RestoreSpec("file:///srv/images/x")),
    "restore into a pod": ActionRequest(
        "a-8", RestoreSpec("s3://images/x", pod=PodRef("u-1", "default", "web"))
    ),
    "restore with everything": ActionRequest(
        "a-7",
        RestoreSpec(
            "s3://bucket/x",
            "nodeTermination",
            "web",
            "web-2",
            "/srv/bundle",
            "/run/other",
            RestoreOverrides("{}", "web-restored"),
        ),
    ),
}


def parse(text: str | bytes) -> ActionRequest:
    data = text.encode() if isinstance(text, str) else text
    return request_from(from_json(data, pb.ActionRequest()))


@pytest.mark.parametrize("name", REQUESTS)
def test_requests_survive_the_wire(name: str) -> None:
    assert parse(to_json(message_of(REQUESTS[name]))) == REQUESTS[name]


def test_types() -> None:
    assert REQUESTS["pod"].type is ActionType.CHECKPOINT
    assert REQUESTS["restore"].type is ActionType.RESTORE


def test_both_spellings_of_a_field_are_read() -> None:
    spec = {"container": {"id": "web"}}
    snake = parse(json.dumps({"action_id": "a", "checkpoint": spec}))
    camel = parse(json.dumps({"actionId": "a", "checkpoint": spec}))
    assert snake == camel == ActionRequest("a", CheckpointSpec(RuncTarget("web")))


def test_enums_are_spelled_as_in_the_actions_api() -> None:
    text = '{"actionId": "a", "checkpoint": {"pod": {"uid": "u"}, "kind": "rootfsonly"}}'
    spec = parse(text).spec
    assert isinstance(spec, CheckpointSpec)
    assert spec.kind is Kind.ROOTFS_ONLY


def test_no_streams_means_the_nodes_own() -> None:
    text = '{"actionId": "a", "checkpoint": {"pod": {"uid": "u"}, "overrides": {"streams": 0}}}'
    spec = parse(text).spec
    assert isinstance(spec, CheckpointSpec)
    assert spec.overrides.streams is None


CHECKPOINT = '{"actionId": "a", "checkpoint": %s}'
RESTORE = '{"actionId": "a", "restore": %s}'


@pytest.mark.parametrize(
    ("text", "field", "reason"),
    [
        ("{", "message", ""),
        ("[]", "actionId", "missing"),
        (b"\xff\xfe", "message", ""),
        ("[" * 100_000, "message", ""),
        ('"' + "x" * MAX_REQUEST + '"', "message", "more than"),
        ('{"actionId": 7}', "actionId", "string"),
        ('{"actionId": "a", "chekpoint": {}}', "chekpoint", "no field"),
        (CHECKPOINT % '{"pod": {"ud": "u"}}', "checkpoint.pod.ud", "no field"),
        ("{}", "actionId", "missing"),
        ('{"actionId": "../../etc"}', "actionId", "letters"),
        ('{"actionId": "a.b c"}', "actionId", "letters"),
        ('{"actionId": "a..b"}', "actionId", "two dots"),
        ('{"actionId": "a."}', "actionId", "two dots"),
        (f'{{"actionId": "{"a" * 129}"}}', "actionId", "128"),
        ('{"actionId": "a"}', "action", "checkpoint"),
        ('{"actionId": "a", "cancel": {}}', "action", "checkpoint"),
        (CHECKPOINT % "{}", "checkpoint", "pod"),
        (CHECKPOINT % '{"pod": {}}', "checkpoint.pod", "uid"),
        (CHECKPOINT % '{"pod": {"name": "web"}}', "checkpoint.pod", "namespace"),
        (CHECKPOINT % '{"pod": {"uid": "a\\nb"}}', "checkpoint.pod.uid", "printed"),
        (CHECKPOINT % '{"container": {}}', "checkpoint.container.id", "missing"),
        (
            CHECKPOINT % '{"container": {"id": "c", "runcRoot": "run/x"}}',
            "checkpoint.container.runcRoot",
            "absolute",
        ),
        (
            CHECKPOINT % '{"container": {"id": "c", "runcRoot": "/run/../etc"}}',
            "checkpoint.container.runcRoot",
            "absolute",
        ),
        (CHECKPOINT % '{"process": {"pid": 1}}', "checkpoint.process.pid", "no process"),
        (CHECKPOINT % '{"process": {"pid": "1x"}}', "pid", "1x"),
        (CHECKPOINT % '{"pod": {"uid": "u"}, "kind": "half"}', "checkpoint.kind", "half"),
        (CHECKPOINT % '{"pod": {"uid": "u"}, "kind": 99}', "checkpoint.kind", "99"),
        (CHECKPOINT % '{"pod": {"uid": "u"}, "reason": 9}', "checkpoint.reason", "9"),
        (CHECKPOINT % '{"pod": 3}', "pod", ""),
        (CHECKPOINT % '{"overrides": {"streams": 1e99}}', "overrides.streams", "range"),
        (RESTORE % "{}", "restore.path", "missing"),
        (RESTORE % '{"path": "/x", "pod": {"name": "a"}}', "restore.pod", "namespace"),
        (
            RESTORE % '{"path": "/x", "pod": {"name": "a", "namespace": "b"}}',
            "restore.pod.uid",
            "missing",
        ),
        (
            RESTORE % '{"path": "/x", "pod": {"uid": "a"}, "containerId": "x"}',
            "restore.containerId",
            "does not go with",
        ),
        (
            RESTORE % '{"path": "/x", "pod": {"uid": "a"}, "overrides": {"criuOpts": "{}"}}',
            "restore.overrides",
            "does not go with",
        ),
        (RESTORE % '{"path": "/x", "runcRoot": "x"}', "restore.runcRoot", "absolute"),
        (RESTORE % f'{{"path": "{"x" * 5000}"}}', "restore.path", "longer"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_used_is_named(text: str | bytes, field: str, reason: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(text)
    assert caught.value.argument == field
    assert reason in caught.value.reason
