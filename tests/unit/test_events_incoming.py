"""What is made of a message, and which field is blamed when it is none."""

from __future__ import annotations

import pytest

from agent.errors import InvalidArgument
from agent.events.incoming import Refused, read_cancel, read_request
from agent.messages.model import ActionType, CheckpointSpec, RestoreSpec
from agent.targets import PodRef


def refused(data: bytes, kind: str = "checkpoint") -> Refused:
    with pytest.raises(Refused) as caught:
        read_request(data, kind)
    return caught.value


def test_a_checkpoint() -> None:
    request = read_request(b'{"actionId": "a", "checkpoint": {"pod": {"uid": "u"}}}', "checkpoint")
    assert request.action_id == "a"
    assert isinstance(request.spec, CheckpointSpec)
    assert request.spec.target == PodRef("u", "", "")


def test_a_restore_in_the_spelling_of_the_proto_file() -> None:
    request = read_request(b'{"action_id": "a", "restore": {"path": "/x"}}', "restore")
    assert isinstance(request.spec, RestoreSpec)


@pytest.mark.parametrize("data", [b'{"actionId": "a"}', b'{"actionId": "a", "cancel": {}}'])
def test_a_cancel(data: bytes) -> None:
    assert read_cancel(data) == "a"


def test_a_checkpoint_is_no_cancel() -> None:
    with pytest.raises(Refused) as caught:
        read_cancel(b'{"actionId": "a", "checkpoint": {}}')
    assert caught.value.action_id == "a"


@pytest.mark.parametrize(
    ("inside", "field"),
    [
        (b'"kind": "full"', "checkpoint.kind"),
        (b'"pod": {"uid": "u"}, "kind": 9', "checkpoint.kind"),
        (b'"reason": []', "checkpoint.reason"),
        (b'"overrides": {"streams": "many"}', "checkpoint.overrides.streams"),
        (b'"overrides": {"asynchronous": "yes"}', "checkpoint.overrides.asynchronous"),
        (b'"overrides": {"criuOpts": {}}', "checkpoint.overrides.criuOpts"),
        (b'"overrides": {"level": 3}', "checkpoint.overrides.level"),
        (b'"pod": {"uuid": "x"}', "checkpoint.pod.uuid"),
        (b'"pod": {"namespace": "x"}', "checkpoint.pod"),
        (b'"container": {"id": "c", "runcRoot": "here"}', "checkpoint.container.runcRoot"),
        (b'"process": {"pid": "x"}', "checkpoint.process.pid"),
        (b'"process": {"pid": 1}', "checkpoint.process.pid"),
    ],
)
def test_the_field_at_fault_is_named(inside: bytes, field: str) -> None:
    error = refused(b'{"actionId": "a", "checkpoint": {%s}}' % inside).error
    assert isinstance(error, InvalidArgument)
    assert error.argument == field


@pytest.mark.parametrize(
    ("data", "action_id"),
    [
        (b'{"actionId": "a", "checkpoint": {', "a"),
        (b'{"action_id" : "a-1.2"', "a-1.2"),
        (b'{"actionId": "a", "x": "%s"}' % (b"x" * (1 << 20)), "a"),
        (b'{"x": "%s", "actionId": "a"}' % (b"x" * (1 << 20)), "a"),
        (b'{"actionId": "../../etc", "checkpoint": {}}', None),
        (b'{"actionId": 5}', None),
        (b'{"actionId": {"actionId": "a"}}', None),
        (b"[]", None),
        (b"", None),
        (b"\xff\xfe", None),
        (b"[" * 200_000, None),
        (b'{"actionId": "a\\u0000", "checkpoint": {}}', None),
    ],
)
def test_an_id_is_found_where_there_is_one(data: bytes, action_id: str | None) -> None:
    assert refused(data).action_id == action_id


def test_a_refused_restore_is_answered_as_a_restore() -> None:
    assert refused(b'{"actionId": "a", "restore": {}}', "restore").type is ActionType.RESTORE


def test_a_complaint_is_short_whatever_was_sent() -> None:
    error = refused(b'{"actionId": "a", "%s": 1}' % (b"x" * 100_000)).error
    assert len(str(error)) < 1000
