"""A server may write the contract otherwise, and offer more."""

from __future__ import annotations

import pytest

from deploy.contract import differences
from tests.openapi_documents import (
    ACTIONS,
    CHECKPOINT,
    OURS,
    POD,
    RESTORE,
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

# How FastAPI writes what the contract has as oneOf, as a list of types, or without a word.
NULLABLE = {"anyOf": [{"type": "string"}, {"type": "null"}], "title": "Pod Id", "default": None}
INT32 = {"type": "integer", "format": "int32", "minimum": -(2**31), "maximum": 2**31 - 1}
COOKIE = {"type": "apiKey", "in": "cookie", "name": "token"}


@pytest.mark.parametrize(
    "changes",
    [
        [put(*POD, "pod_id", value=NULLABLE)],
        [put(*POD, "overrides", value={"anyOf": [named("CheckpointOverrides"), {"type": "null"}]})],
        [put(*POD, "kind", value={"allOf": [named("CheckpointKind")], "title": "Kind"})],
        [put(*POD, "kind", value=OURS["components"]["schemas"]["CheckpointKind"])],
        [put(*SCHEMAS, "CheckpointReason", value={"enum": ["manual", "heartbeat"]})],
        [
            put(
                *SCHEMAS,
                "CheckpointReason",
                value={"oneOf": [{"const": "manual"}, {"const": "heartbeat"}]},
            )
        ],
        [put(*SCHEMAS, "RestorePod", "required", value=["reason", "action_id"])],
        [put(*SCHEMAS, "CheckpointPod", "additionalProperties", value=True)],
        [put(*STREAMS, value=INT32)],
        [put(*SCHEMAS, "Action", "properties", "details", value={"anyOf": [{}, {"type": "null"}]})],
        [
            put(
                *SCHEMAS,
                "Action",
                "properties",
                "details",
                value={"title": "Details", "examples": [1]},
            )
        ],
        [
            put(
                "components",
                "responses",
                value={"Failed": OURS["paths"]["/v2/actions"]["get"]["responses"]["500"]},
            ),
            put(*ACTIONS, "responses", "500", value={"$ref": "#/components/responses/Failed"}),
        ],
        [
            put(
                *SCHEMAS,
                "CheckpointPod-Input",
                value=OURS["components"]["schemas"]["CheckpointPod"],
            ),
            put(
                *CHECKPOINT,
                "requestBody",
                "content",
                "application/json",
                "schema",
                value=named("CheckpointPod-Input"),
            ),
        ],
        [put(*CHECKPOINT, "summary", value="Something else"), drop(*CHECKPOINT, "tags")],
    ],
)
def test_another_spelling_of_the_same(changes: list[Change]) -> None:
    assert differences(OURS, server(*changes)) == []


@pytest.mark.parametrize(
    "changes",
    [
        [put("paths", "/v2/nodes", value=OURS["paths"]["/v2/actions"])],
        [put("paths", "/v2/actions", "post", value=OURS["paths"]["/v2/restore/pod"]["post"])],
        [add(*ACTIONS, "parameters", value=parameter("state", "query", required=False))],
        [
            put(
                *RESTORE,
                "parameters",
                value=[parameter("Idempotency-Key", "header", required=False)],
            ),
        ],
        [
            put(*RESTORE, "responses", code, value={"description": ""})
            for code in ("401", "413", "429")
        ],
        [
            put(
                *ACTIONS,
                "responses",
                "200",
                "headers",
                value={"Link": {"schema": {"type": "string"}}},
            )
        ],
        [put(*SCHEMAS, "NodeView", value={"type": "object"})],
        [
            put("components", "securitySchemes", "Cookie", value=COOKIE),
            put(*ACTIONS, "security", value=[{"Token": []}, {"Cookie": []}]),
        ],
    ],
)
def test_a_server_may_offer_more(changes: list[Change]) -> None:
    assert differences(OURS, server(*changes)) == []
