"""Bodies as actions for a node: what is taken, what is refused, and by which name."""

from __future__ import annotations

from typing import Any

import pytest

from agent.api.asked import as_sent, checkpoint_spec, pod_of, restore_spec, storable, text
from agent.api.schemas import CheckpointPod, RestorePod
from agent.errors import InvalidArgument
from agent.messages.model import (
    CheckpointOverrides,
    CheckpointSpec,
    RestoreOverrides,
    RestoreSpec,
)
from agent.targets import Kind, PodRef

POD = PodRef("u", "n", "p")


def checkpoint(**fields: Any) -> CheckpointPod:  # noqa: ANN401 - JSON
    return CheckpointPod.model_validate({"pod_id": "u", **fields})


def restore(**fields: Any) -> RestorePod:  # noqa: ANN401 - JSON
    return RestorePod.model_validate({"action_id": "a", "reason": "manual", **fields})


def test_a_pod_is_what_was_named() -> None:
    body = checkpoint(pod_name="web", namespace="default")
    assert pod_of(body) == PodRef("u", "default", "web")
    assert pod_of(checkpoint(pod_id=None, pod_name="web")) == PodRef("", "", "web")
    with pytest.raises(InvalidArgument, match="give pod_id, or pod_name"):
        pod_of(checkpoint(pod_id=None, namespace="default"))


def test_a_checkpoint_with_everything() -> None:
    overrides = {
        "asynchronous": False,
        "compression": "zstd:3",
        "criu_opts": '{"tcp_close": true}',
        "directory": "/d",
        "streams": 64,
    }
    body = checkpoint(kind="rootfsonly", reason="heartbeat", overrides=overrides)
    assert checkpoint_spec(body, POD) == CheckpointSpec(
        POD,
        Kind.ROOTFS_ONLY,
        "heartbeat",
        None,
        CheckpointOverrides(False, "zstd:3", '{"tcp_close": true}', "/d", 64),
    )


def test_empty_is_not_given() -> None:
    empty = {"compression": "", "criu_opts": "", "directory": "", "streams": 0}
    assert checkpoint_spec(checkpoint(overrides=empty), POD) == CheckpointSpec(POD)
    given = {"criu_opts": "", "pod_name": ""}
    assert restore_spec(restore(overrides=given), "memory:/x") == RestoreSpec("memory:/x")


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ({"compression": "zip"}, "overrides.compression"),
        ({"compression": "x" * 33}, "overrides.compression"),
        ({"streams": 65}, "overrides.streams"),
        ({"streams": -1}, "overrides.streams"),
        ({"criu_opts": "{"}, "overrides.criu_opts"),
        ({"criu_opts": '{"leave_running": false}'}, "overrides.criu_opts"),
        ({"directory": "/a\x1b[2J"}, "overrides.directory"),
        ({"directory": "/a\u2028b"}, "overrides.directory"),
        ({"directory": "/a\u202eb"}, "overrides.directory"),
    ],
)
def test_overrides_are_refused_by_name(overrides: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        checkpoint_spec(checkpoint(overrides=overrides), POD)
    assert refused.value.argument == field


def test_a_restore_with_everything() -> None:
    overrides = {"criu_opts": '{"tcp_close": true}', "pod_name": "other"}
    body = restore(reason="nodeTermination", overrides=overrides)
    assert restore_spec(body, "memory:/x") == RestoreSpec(
        "memory:/x",
        "nodeTermination",
        overrides=RestoreOverrides('{"tcp_close": true}', "other"),
    )


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ({"criu_opts": "[]"}, "overrides.criu_opts"),
        ({"pod_name": "x" * 254}, "overrides.pod_name"),
        ({"pod_name": "a\0b"}, "overrides.pod_name"),
    ],
)
def test_overrides_of_a_restore_too(overrides: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        restore_spec(restore(overrides=overrides), "memory:/x")
    assert refused.value.argument == field


def test_text() -> None:
    assert text(None, "f", 3) == ""
    assert text("äöü", "f", 3) == "äöü"
    for wrong in ("abcd", "a\n", "\0", "\x7f", "\u2028", "\ud800"):
        with pytest.raises(InvalidArgument) as refused:
            text(wrong, "f", 3)
        assert refused.value.argument == "f"


def nested(levels: int) -> object:
    value: object = 1
    for level in range(levels):
        value = [value] if level % 2 else {"x": value}
    return value


@pytest.mark.parametrize(
    "value",
    [
        None, True, 0, -1.5, "", "a\\u0000b", "\\", "\\\\u0000", {"": {}}, [[]], 10**300,
        nested(100), {"\\u0000": "\\\\\\u0000"},
    ],
)  # fmt: skip
def test_what_can_be_stored_stays_as_it_is(value: object) -> None:
    assert storable(value, "f") is value


@pytest.mark.parametrize(
    "value",
    [
        "\0", "\\\0", ["a\0"], {"a\0": 1}, "\ud800", {"\udfff": 1}, float("nan"),
        [float("inf")], nested(101), nested(100_000),
    ],
    ids=range(10),
)  # fmt: skip
def test_what_cannot_be_stored_is_refused(value: object) -> None:
    with pytest.raises(InvalidArgument) as refused:
        storable(value, "f")
    assert refused.value.argument == "f"
    # It is sent in an answer.
    assert str(refused.value).encode()


def test_what_was_sent_is_kept_without_what_was_not() -> None:
    body = checkpoint(action_id="ignored", overrides={"streams": 2}, unknown=1)
    assert as_sent(body) == {"pod_id": "u", "overrides": {"streams": 2}}
    body = checkpoint(kind="simple", namespace=None)
    assert as_sent(body) == {"pod_id": "u", "kind": "simple", "namespace": None}
    assert as_sent(restore()) == {"action_id": "a", "reason": "manual"}
