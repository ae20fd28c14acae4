"""Every way in which a server can break the contract is found, and said in a line."""

from __future__ import annotations

from copy import deepcopy

import pytest

from deploy.contract import differences
from tests.openapi_documents import (
    ACTIONS,
    CHECKPOINT,
    OK,
    OURS,
    POD,
    SCHEMAS,
    STREAMS,
    Change,
    add,
    drop,
    named,
    parameter,
    put,
    server,
)


def test_the_contract_keeps_itself() -> None:
    assert differences(OURS, deepcopy(OURS)) == []


def test_every_operation_of_the_contract_is_looked_at() -> None:
    empty = {"paths": {}, "components": {"schemas": OURS["components"]["schemas"]}}
    assert sorted(differences(OURS, empty)) == [
        "GET /v2/actions/from_pod/{id}: missing",
        "GET /v2/actions: missing",
        "GET /v2/checkpoint/path: missing",
        "GET /v2/checkpoint/status/{action_id}: missing",
        "POST /v2/actions/upload: missing",
        "POST /v2/checkpoint/pod: missing",
        "POST /v2/restore/pod: missing",
    ]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (drop(*ACTIONS), "GET /v2/actions: missing"),
        (
            put(*ACTIONS, "operationId", value="list_actions"),
            "GET /v2/actions: operationId is list_actions, in the contract list",
        ),
        (put(*ACTIONS, "security", value=[]), "GET /v2/actions: can be called without security"),
        (put(*ACTIONS, "security", value=[]), "GET /v2/actions: security http bearer is missing"),
        (put(*ACTIONS, "parameters", value=[]), "GET /v2/actions query type: missing"),
        (
            put(*ACTIONS, "parameters", 0, "required", value=True),
            "GET /v2/actions query type: required is true, in the contract false",
        ),
        (
            put(*ACTIONS, "parameters", 0, "schema", value={"type": "string"}),
            "GET /v2/actions query type: type is string, in the contract null or string",
        ),
        (
            add(*ACTIONS, "parameters", value=parameter("cluster", "query", required=True)),
            "GET /v2/actions query cluster: required, and not in the contract",
        ),
        (
            put(
                "paths",
                "/v2/actions",
                "parameters",
                value=[parameter("x", "header", required=True)],
            ),
            "GET /v2/actions header x: required, and not in the contract",
        ),
        (
            put(*CHECKPOINT, "requestBody", "required", value=False),
            "POST /v2/checkpoint/pod body: required is false, in the contract true",
        ),
        (
            drop(*CHECKPOINT, "requestBody"),
            "POST /v2/checkpoint/pod body: application/json is missing",
        ),
        (
            put(*ACTIONS, "requestBody", value={"required": True, "content": {}}),
            "GET /v2/actions body: required is true, in the contract false",
        ),
        (drop(*CHECKPOINT, "responses", "404"), "POST /v2/checkpoint/pod 404: missing"),
        (
            put(*OK, value={"application/json": {"schema": {"type": "string"}}}),
            "POST /v2/checkpoint/pod 200: text/plain is missing",
        ),
        (
            put(*OK, "application/json", value={"schema": {"type": "string"}}),
            "POST /v2/checkpoint/pod 200: application/json is not in the contract",
        ),
        (
            put(*OK, "text/plain", "schema", "format", value="uuid"),
            "POST /v2/checkpoint/pod 200 text/plain: format uuid is not in the contract",
        ),
        (
            put(
                *CHECKPOINT,
                "responses",
                "400",
                "content",
                "application/json",
                "schema",
                value=named("StatusResponse"),
            ),
            "POST /v2/checkpoint/pod 400 application/json: property message is missing",
        ),
    ],
)
def test_an_operation_that_differs(change: Change, line: str) -> None:
    assert line in differences(OURS, server(change))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (drop(*POD, "reason"), "CheckpointPod: property reason is missing"),
        (put(*POD, "colour", value={}), "CheckpointPod: property colour is not in the contract"),
        (
            put(*POD, "pod_id", value={"type": "string"}),
            "CheckpointPod.pod_id: type is string, in the contract null or string",
        ),
        (
            put(*POD, "reason", value={"oneOf": [named("CheckpointReason"), {"type": "null"}]}),
            "CheckpointPod.reason: type is null or string, in the contract string",
        ),
        (
            put(*POD, "pod_id", "maxLength", value=253),
            "CheckpointPod.pod_id: maxLength 253 is not in the contract",
        ),
        (
            put(
                *POD,
                "pod_id",
                value={"anyOf": [{"type": "string", "pattern": "^x"}, {"type": "null"}]},
            ),
            "CheckpointPod.pod_id: pattern ^x is not in the contract",
        ),
        (drop(*POD, "action_id", "readOnly"), "CheckpointPod.action_id: readOnly true is missing"),
        (
            put(*SCHEMAS, "CheckpointPod", "required", value=["pod_id"]),
            "CheckpointPod: required pod_id is not in the contract",
        ),
        (
            put(*SCHEMAS, "CheckpointPod", "additionalProperties", value=False),
            "CheckpointPod: additionalProperties false is not in the contract",
        ),
        (drop(*SCHEMAS, "RestorePod", "required", 1), "RestorePod: required reason is missing"),
        (
            drop(*SCHEMAS, "CheckpointReason", "enum", 1),
            'CheckpointReason: enum "manual" is missing',
        ),
        (
            add(*SCHEMAS, "CheckpointReason", "enum", value="maintenance"),
            'CheckpointReason: enum "maintenance" is not in the contract',
        ),
        (
            put(*STREAMS, "minimum", value=0),
            "CheckpointOverrides.streams: minimum 0 is not in the contract",
        ),
        (
            put(*STREAMS, "maximum", value=32),
            "CheckpointOverrides.streams: maximum 32 is not in the contract",
        ),
        (drop(*STREAMS, "format"), "CheckpointOverrides.streams: format int32 is missing"),
        (
            put(*STREAMS, "default", value=0),
            "CheckpointOverrides.streams: default 0 is not in the contract",
        ),
        (
            put(*SCHEMAS, "Action", "properties", "action_timestamp", "format", value="date"),
            "Action.action_timestamp: format is date, in the contract date-time",
        ),
        (
            put(*SCHEMAS, "Action", "properties", "details", value={"type": "object"}),
            "Action.details: type is object, in the contract anything",
        ),
    ],
)
def test_a_schema_that_differs(change: Change, line: str) -> None:
    assert differences(OURS, server(change)) == [line]


def test_a_component_under_another_name() -> None:
    schemas = OURS["components"]["schemas"]
    renamed = server(
        put(*SCHEMAS, "Reason", value=schemas["RestoreReason"]),
        put(*SCHEMAS, "RestorePod", "properties", "reason", value=named("Reason")),
        drop(*SCHEMAS, "RestoreReason"),
    )
    assert differences(OURS, renamed) == ["RestoreReason: missing"]


def test_another_component_in_its_place() -> None:
    other = server(put(*POD, "overrides", "oneOf", 1, value=named("RestoreOverrides")))
    assert set(differences(OURS, other)) == {
        *(
            f"CheckpointPod.overrides: property {name} is missing"
            for name in ("asynchronous", "compression", "directory", "streams")
        ),
        "CheckpointPod.overrides: property pod_name is not in the contract",
    }


def test_what_is_wrong_with_a_component_is_said_once() -> None:
    """However many operations answer with it."""
    spoilt = server(drop(*SCHEMAS, "ApiError", "required"))
    assert differences(OURS, spoilt) == ["ApiError: required message is missing"]
