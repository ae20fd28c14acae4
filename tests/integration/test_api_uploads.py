"""POST /v2/actions/upload: what the cluster knows of an action is kept with it, as it came."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api_nodes import pod
from tests.api_rows import row
from tests.api_stages import Stage, put
from tests.http import Answer

NOBODY = "00000000-0000-0000-0000-000000000001"

# What a careless store would change.
SPEC = {
    "containers": [{"name": "app", "args": ["^\\u0000", "\\", "tab\there", "ünïcödé 🎈", ""]}],
    "numbers": [0, -1, 1.5, 2**53 + 1, 10**400, True, None],
    "": {"z": 1, "a": {}},
}


def action(stage: Stage, **fields: object) -> str:
    """One that is in the database."""
    made = row(**fields)
    put(stage.api, made)
    return made.action_id


def upload(stage: Stage, action_id: object, **body: object) -> Answer:
    given = {"status": "ready", **body, "action_id": action_id}
    return stage.api.post("/v2/actions/upload", given)


def test_what_was_uploaded_is_there_as_it_came(stage: Stage) -> None:
    action_id = action(stage)
    empty = stage.api.get(f"/v2/actions/{action_id}").json()
    assert empty["pod_spec"] is None
    answer = upload(stage, action_id, pod_spec=SPEC, pod_metadata_spec=[SPEC])
    assert answer.status == 200, answer.text
    detail = stage.api.get(f"/v2/actions/{action_id}").json()
    assert detail["pod_spec"] == SPEC
    assert detail["pod_metadata_spec"] == [SPEC]
    assert detail["persistent_volume_claim"] is None
    # `status` is the node's to report.
    assert detail["status"] == "initialized"


def test_the_next_one_adds_to_it(stage: Stage) -> None:
    action_id = action(stage)
    assert upload(stage, action_id, pod_spec={"a": 1}, pod_metadata_spec="m").status == 200
    assert upload(stage, action_id, persistent_volume_claim=["p"]).status == 200
    assert upload(stage, action_id, pod_spec={"b": 2}, pod_metadata_spec=None).status == 200
    detail = stage.api.get(f"/v2/actions/{action_id}").json()
    assert detail["pod_spec"] == {"b": 2}
    assert detail["pod_metadata_spec"] == "m"
    assert detail["persistent_volume_claim"] == ["p"]


def test_it_does_not_disturb_the_action(stage: Stage) -> None:
    web = pod("web")
    with stage.node(web, open_gate=False) as node:
        action_id = stage.checkpoint(web)
        stage.api.wait_state(action_id, "checkpoint_created")
        assert upload(stage, action_id, pod_id="another", pod_spec=SPEC).status == 200
        node.let_go()
        done = stage.api.wait_state(action_id, "ready")
    assert done["pod_spec"] == SPEC
    # It has a pod already, and keeps it.
    assert done["details"]["pod"]["uid"] == web.ref.uid


def test_an_action_without_a_pod_gets_the_uploaded_one(stage: Stage) -> None:
    action_id = action(stage, node="nowhere")
    uid = pod().ref.uid
    assert upload(stage, action_id, pod_id=uid).status == 200
    assert stage.api.get(f"/v2/actions/from_pod/{uid}").text == action_id


@pytest.mark.parametrize("action_id", [NOBODY, "x", "\0", ""])
def test_an_action_that_nobody_asked_for(stage: Stage, action_id: str) -> None:
    answer = upload(stage, action_id, pod_spec={})
    assert answer.status == 404
    assert answer.json()["code"] == "404"


NESTED: Any = []
for _ in range(500):
    NESTED = [NESTED]

BAD: dict[str, dict[str, object]] = {
    "NUL": {"pod_spec": {"args": ["a\0b"]}},
    "NUL in a key": {"pod_spec": {"a\0b": 1}},
    "half a character": {"pod_metadata_spec": "\ud800"},
    "half a character in a key": {"pod_metadata_spec": {"\udfff": 1}},
    "not a number": {"persistent_volume_claim": float("nan")},
    "infinite": {"persistent_volume_claim": [float("inf")]},
    "deep": {"pod_spec": NESTED},
    "number for a pod": {"pod_id": 7},
    "NUL in a pod": {"pod_id": "\0"},
    "long pod": {"pod_id": "x" * 129},
    "no status": {"status": None},
    "number for an action": {"action_id": 7},
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
def test_what_cannot_be_stored(stage: Stage, body: dict[str, object]) -> None:
    action_id = action(stage)
    before = stage.api.get(f"/v2/actions/{action_id}").json()
    given = {"action_id": action_id, "status": "ready", **body}
    answer = stage.api.post("/v2/actions/upload", given)
    assert answer.status == 400, answer.text
    assert answer.json()["code"] == "400"
    assert next(iter(body)) in answer.json()["message"]
    assert stage.api.get(f"/v2/actions/{action_id}").json() == before


def test_a_large_one(stage: Stage) -> None:
    action_id = action(stage)
    spec = {"annotation": "x" * 2_000_000}
    assert upload(stage, action_id, pod_spec=spec).status == 200
    assert stage.api.get(f"/v2/actions/{action_id}").json()["pod_spec"] == spec
