"""Bodies of requests: strict about types, generous about what is not there or not known."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from agent.api import schemas
from agent.api.app import schema
from agent.messages.model import State

STATUS = schemas.CheckpointStatusWithPodSpec


def read(model: type[BaseModel], **fields: Any) -> BaseModel:  # noqa: ANN401 - JSON
    return model.model_validate(fields)


def test_what_is_left_out_is_the_contract_s_default() -> None:
    body = schemas.CheckpointPod()
    assert body.kind is schemas.CheckpointKind.SIMPLE
    assert body.reason is schemas.CheckpointReason.MANUAL
    assert read(schemas.CheckpointOverrides).model_dump()["streams"] == 0


def test_what_is_not_known_is_ignored() -> None:
    body = read(schemas.CheckpointPod, pod_id="u", later=1, overrides={"more": [1]})
    assert "later" not in body.model_dump()


@pytest.mark.parametrize(
    ("model", "fields", "at"),
    [
        (schemas.CheckpointPod, {"pod_id": 1}, ("pod_id",)),
        (schemas.CheckpointPod, {"kind": "SIMPLE"}, ("kind",)),
        (schemas.CheckpointPod, {"kind": None}, ("kind",)),
        (schemas.CheckpointPod, {"reason": "nodeTermination"}, ("reason",)),
        (schemas.CheckpointPod, {"overrides": "x"}, ("overrides",)),
        (schemas.CheckpointOverrides, {"streams": "1"}, ("streams",)),
        (schemas.CheckpointOverrides, {"streams": 1.0}, ("streams",)),
        (schemas.CheckpointOverrides, {"streams": True}, ("streams",)),
        (schemas.CheckpointOverrides, {"asynchronous": "true"}, ("asynchronous",)),
        (schemas.CheckpointOverrides, {"criu_opts": {}}, ("criu_opts",)),
        (schemas.RestorePod, {"reason": "manual"}, ("action_id",)),
        (schemas.RestorePod, {"action_id": "a"}, ("reason",)),
        (schemas.RestorePod, {"action_id": "a", "reason": "heartbeat"}, ("reason",)),
        (schemas.RestorePod, {"action_id": "a", "reason": "manual", "cluster_id": 1},
         ("cluster_id",)),
        (STATUS, {"action_id": "a"}, ("status",)),
        (STATUS, {"action_id": 1, "status": "x"}, ("action_id",)),
        (schemas.Credentials, {}, ("token",)),
        (schemas.Credentials, {"token": 1}, ("token",)),
    ],
)  # fmt: skip
def test_types_are_what_they_are(
    model: type[BaseModel], fields: dict[str, object], at: tuple[str, ...]
) -> None:
    with pytest.raises(ValidationError) as refused:
        read(model, **fields)
    assert [error["loc"] for error in refused.value.errors()] == [at]


def test_any_json_may_be_uploaded() -> None:
    values: tuple[object, ...] = (None, 1, "x", [], {"a": [1, {"b": None}]})
    for value in values:
        body = STATUS(action_id="a", status="ready", pod_spec=value)
        assert body.pod_spec == value


def test_every_state_of_an_action_has_its_status() -> None:
    known = {each.value for each in schemas.CheckpointOperationStatus}
    assert {state.value for state in State} | {"not_found"} == known


def test_the_document_tells_no_defaults_and_no_answers_that_there_are_not() -> None:
    document = schema()
    described = document["components"]["schemas"]
    for name in ("CheckpointPod", "CheckpointOverrides", "RestorePod"):
        for field in described[name]["properties"].values():
            assert "default" not in field
    assert "HTTPValidationError" not in described
    for path in document["paths"].values():
        for operation in path.values():
            assert "422" not in operation["responses"]
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    reference = answer["content"]["application/json"]["schema"]
                    assert reference == {"$ref": "#/components/schemas/ApiError"}
