"""Bodies as actions for a node; everything in them is hostile until it has been through here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from agent.actions.overrides import compression_of, criu_options, streams_of
from agent.api.schemas import CheckpointPod, RestorePod
from agent.errors import InvalidArgument
from agent.manifest import Options
from agent.messages.model import (
    CheckpointOverrides,
    CheckpointSpec,
    RestoreOverrides,
    RestoreSpec,
)
from agent.targets import Kind, PodRef

# Of what a request may name: Kubernetes' longest name, and the longest path of Linux.
_NAME, _PATH = 253, 4096

# Objects of Kubernetes are some 15 deep. More than 255 could be stored, but not be shown.
_DEEPEST = 100
# As JSON has it: an even number of backslashes before it are just backslashes.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

# What any node has for what is not given: only so that what is given can be checked.
_COMPRESSION, _STREAMS = "zstd", 1


def pod_of(body: CheckpointPod) -> PodRef:
    """The pod that is meant; its namespace may be left out as long as the name says enough.

    Raises:
        InvalidArgument: neither id nor name, or something that is none.
    """
    pod = PodRef(
        uid=text(body.pod_id, "pod_id", 128),
        namespace=text(body.namespace, "namespace", _NAME),
        name=text(body.pod_name, "pod_name", _NAME),
    )
    if not pod.uid and not pod.name:
        raise InvalidArgument("pod_id", "give pod_id, or pod_name with its namespace")
    return pod


def checkpoint_spec(body: CheckpointPod, pod: PodRef) -> CheckpointSpec:
    """What a node is to do with ``pod``.

    Raises:
        InvalidArgument: an override cannot be used, whatever the node's configuration.
    """
    given = body.overrides
    overrides = CheckpointOverrides()
    if given is not None:
        overrides = CheckpointOverrides(
            asynchronous=given.asynchronous,
            compression=text(given.compression, "overrides.compression", 32) or None,
            criu_opts=given.criu_opts or None,
            directory=text(given.directory, "overrides.directory", _PATH) or None,
            # The contract's number cannot be null: 0 is the node's own.
            streams=given.streams or None,
        )
    compression_of(overrides.compression, _COMPRESSION, "overrides.compression")
    streams_of(overrides.streams, _STREAMS, "overrides.streams")
    criu_options(overrides.criu_opts, Options(), "overrides.criu_opts")
    return CheckpointSpec(
        target=pod,
        kind=Kind(body.kind.value),
        reason=body.reason.value,
        overrides=overrides,
    )


def restore_spec(body: RestorePod, path: str) -> RestoreSpec:
    """What a node is to do with the checkpoint at ``path``.

    Raises:
        InvalidArgument: an override cannot be used.
    """
    overrides = RestoreOverrides()
    if body.overrides is not None:
        overrides = RestoreOverrides(
            criu_opts=body.overrides.criu_opts or None,
            pod_name=text(body.overrides.pod_name, "overrides.pod_name", _NAME) or None,
        )
    criu_options(overrides.criu_opts, Options(), "overrides.criu_opts")
    return RestoreSpec(path=path, reason=body.reason.value, overrides=overrides)


def text(value: str | None, field: str, limit: int) -> str:
    """The same text, "" for None. Raises InvalidArgument if it is no name or path."""
    if value is None:
        return ""
    if len(value) > limit:
        raise InvalidArgument(field, f"is longer than {limit} characters")
    if not value.isprintable():
        raise InvalidArgument(field, "has characters that cannot be printed")
    return value


def storable(value: Any, field: str) -> Any:  # noqa: ANN401 - any JSON
    """The same JSON. Raises InvalidArgument if a database cannot keep it as it is."""
    try:
        written = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(field, f"is no JSON that can be stored: {error}") from None
    if _NUL.search(written):
        raise InvalidArgument(field, "has a character of number 0")
    if not _is_within(value, _DEEPEST):
        raise InvalidArgument(field, f"is nested more than {_DEEPEST} deep")
    return value


def _is_within(value: object, levels: int) -> bool:
    """Whether it is nested so deep at most."""
    if not isinstance(value, dict | list):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_is_within(each, levels - 1) for each in inner)


def as_sent(body: CheckpointPod | RestorePod) -> Mapping[str, Any]:
    """What was asked for, without what was left out."""
    # A checkpoint's id is the API's to give; what a client puts there is ignored.
    given = {"action_id"} if isinstance(body, CheckpointPod) else set()
    return body.model_dump(mode="json", exclude_unset=True, exclude=given)
