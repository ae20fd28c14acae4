"""Idempotency-Key: however often a client asks, it is one action; and whose key is whose."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.api_nodes import pod
from tests.api_stages import Stage, accepted
from tests.http import Answer

CHECKPOINT, RESTORE = "/v2/checkpoint/pod", "/v2/restore/pod"


def test_the_same_request_with_the_same_key_is_the_same_action(stage: Stage) -> None:
    web = pod("web")
    with stage.node(web) as node:
        body = {"pod_id": web.ref.uid, "overrides": {"streams": 2}}
        first = stage.api.post(CHECKPOINT, body, key="k1")
        again = stage.api.post(CHECKPOINT, dict(reversed(body.items())), key="k1")
        assert (first.status, again.status) == (200, 200)
        assert again.text == first.text
        assert first.headers["Idempotency-Replayed"] is None
        assert again.headers["Idempotency-Replayed"] == "true"
        stage.api.wait_state(first.text, "ready")
        # And when it is over.
        assert stage.api.post(CHECKPOINT, body, key="k1").text == first.text
        # Without one, each is its own.
        assert len({first.text, *(stage.ready(web) for _ in range(2))}) == 3
        assert len(node.engine.runs) == 3
    # Also when there is no node any more that it could be asked for.
    assert stage.api.post(CHECKPOINT, body, key="k1").text == first.text


def test_a_key_stands_for_one_request_only(stage: Stage) -> None:
    web, db = pod("web"), pod("db")
    with stage.node(web, db) as node:
        action_id = accepted(stage.api, "checkpoint", {"pod_id": web.ref.uid}, key="k2")
        stage.api.wait_state(action_id, "ready")
        others: tuple[tuple[str, dict[str, object]], ...] = (
            (CHECKPOINT, {"pod_id": db.ref.uid}),
            (CHECKPOINT, {"pod_id": web.ref.uid, "overrides": {"streams": 2}}),
            (CHECKPOINT, {"pod_id": web.ref.uid, "reason": "heartbeat"}),
            (RESTORE, {"action_id": action_id, "reason": "manual"}),
        )
        for path, body in others:
            answer = stage.api.post(path, body, key="k2")
            assert answer.status == 400, answer.text
            assert answer.json()["message"] == "Idempotency-Key: was used for another request"
        assert node.engine.runs == [action_id]


def test_a_key_is_its_token_s_own(stage: Stage) -> None:
    web = pod("web")
    other = stage.api.make_token("other")
    with stage.node(web):
        body = {"pod_id": web.ref.uid}
        mine = stage.api.post(CHECKPOINT, body, key="k3")
        theirs = stage.api.post(CHECKPOINT, body, token=other, key="k3")
        assert (mine.status, theirs.status) == (200, 200)
        assert mine.text != theirs.text
        assert theirs.headers["Idempotency-Replayed"] is None


def test_twenty_at_once_are_one_action(stage: Stage) -> None:
    web = pod("web")
    with stage.node(web) as node, ThreadPoolExecutor(20) as pool:

        def ask(_: int) -> Answer:
            return stage.api.post(CHECKPOINT, {"pod_id": web.ref.uid}, key="k4")

        answers = list(pool.map(ask, range(20)))
        assert {answer.status for answer in answers} == {200}, answers
        assert len({answer.text for answer in answers}) == 1
        replayed = [answer.headers["Idempotency-Replayed"] for answer in answers]
        assert sorted(replayed, key=str) == [None] + ["true"] * 19
        stage.api.wait_state(answers[0].text, "ready")
        # A second one would be in the node's queue behind it.
        assert stage.ready(web) == node.engine.runs[-1]
        assert node.engine.runs[:-1] == [answers[0].text]


def test_twenty_keys_at_once_are_twenty_actions(stage: Stage) -> None:
    web = pod("web")
    with stage.node(web) as node, ThreadPoolExecutor(20) as pool:

        def ask(number: int) -> str:
            return accepted(stage.api, "checkpoint", {"pod_id": web.ref.uid}, key=f"many-{number}")

        ids = list(pool.map(ask, range(20)))
        assert len(set(ids)) == 20
        for action_id in ids:
            stage.api.wait_state(action_id, "ready")
        assert sorted(node.engine.runs) == sorted(ids)


def test_a_restore_has_keys_as_well(sqlite_stage: Stage) -> None:
    web = pod("web")
    with sqlite_stage.node(web) as node:
        body = {"action_id": sqlite_stage.ready(web), "reason": "manual"}
        first = sqlite_stage.api.post(RESTORE, body, key="k5")
        again = sqlite_stage.api.post(RESTORE, body, key="k5")
        assert first.text == again.text
        assert again.headers["Idempotency-Replayed"] == "true"
        sqlite_stage.api.wait_state(first.text, "ready")
        assert node.engine.runs.count(first.text) == 1


def test_what_was_refused_does_not_use_up_the_key(stage: Stage) -> None:
    web = pod("late")
    body = {"pod_id": web.ref.uid}
    assert stage.api.post(CHECKPOINT, body, key="k6").status == 404
    assert stage.api.post(CHECKPOINT, {**body, "kind": "foo"}, key="k6").status == 400
    with stage.node(web):
        answer = stage.api.post(CHECKPOINT, body, key="k6")
        assert answer.status == 200
        assert answer.headers["Idempotency-Replayed"] is None
