"""Lists of actions, one action, and what is found by a pod or by a checkpoint's name."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import pytest

from agent.api.database.connection import now
from agent.api.database.tables import NameRow
from tests.api_nodes import PHASES, path_of, pod
from tests.api_rows import row
from tests.api_stages import Stage, accepted, put, timeline

NOBODY = str(uuid.UUID(int=1))


def ids(found: Sequence[dict[str, Any]]) -> list[str]:
    return [each["action_id"] for each in found]


def test_newest_first_and_page_by_page(stage: Stage) -> None:
    began = now()
    node = f"paged-{stage.api.address.rpartition(':')[2]}"
    # Five of each instant: their ids tell which comes first.
    rows = [row(created=began + number // 5, node=node) for number in range(250)]
    wanted = [
        each.action_id
        for each in sorted(rows, key=lambda each: (each.created, each.action_id), reverse=True)
    ]
    put(stage.api, *rows)
    pages, path = [], f"/v2/actions?node={node}&limit=100&type=checkpoint_pod"
    while path:
        answer = stage.api.get(path)
        assert answer.status == 200
        pages.append(ids(answer.json()))
        link = answer.headers["Link"] or ""
        path = link.removeprefix("<").removesuffix('>; rel="next"')
    assert [len(page) for page in pages] == [100, 100, 50]
    assert [action_id for page in pages for action_id in page] == wanted
    # What is new does not shift the pages.
    put(stage.api, row(created=began + 1000, node=node))
    after = stage.api.get(f"/v2/actions?node={node}&limit=100&before={wanted[99]}")
    assert ids(after.json()) == wanted[100:200]
    # A page that ends exactly with the last one is the last.
    last = stage.api.get(f"/v2/actions?node={node}&limit=50&before={wanted[199]}")
    assert (len(last.json()), last.headers["Link"]) == (50, None)
    assert len(stage.api.get(f"/v2/actions?node={node}").json()) == 100
    assert len(stage.api.get(f"/v2/actions?node={node}&limit=1000").json()) == 251


def test_every_filter(stage: Stage) -> None:
    made = {
        "plain": row(node="f-1", pod_namespace="f", pod_name="web-0"),
        "ready": row(node="f-1", pod_namespace="f", pod_name="web-1", state="ready"),
        "beat": row(node="f-2", pod_namespace="f", pod_name="db_0", reason="heartbeat"),
        "restore": row(node="f-2", pod_namespace="f", pod_name="db-0", type="restore_pod"),
        "other": row(node="f-2", pod_namespace="f-other", pod_name="100%", state="error"),
    }
    put(stage.api, *made.values())
    names = {each.action_id: name for name, each in made.items()}

    def found(**query: str) -> set[str]:
        words = "&".join(f"{key}={quote(value)}" for key, value in query.items())
        answer = stage.api.get(f"/v2/actions?limit=1000&{words}")
        assert answer.status == 200, answer.text
        return {names[each] for each in ids(answer.json()) if each in names}

    assert found() == set(made)
    assert found(type="checkpoint_pod") == {"plain", "ready", "beat", "other"}
    assert found(type="restore_pod") == {"restore"}
    assert found(type="heartbeat") == {"beat"}
    assert found(state="ready") == {"ready"}
    assert found(state="initialized") == {"plain", "beat", "restore"}
    assert found(state="error") == {"other"}
    assert found(node="f-1") == {"plain", "ready"}
    assert found(node="f") == set()
    assert found(namespace="f") == {"plain", "ready", "beat", "restore"}
    assert found(pod="web") == {"plain", "ready"}
    assert found(pod="b-1") == {"ready"}
    # Letters that mean something to SQL mean themselves.
    assert found(pod="_0") == {"beat"}
    assert found(pod="%", node="f-2") == {"other"}
    assert found(pod="' OR 1=1 --") == set()
    assert found(node="f-2", type="checkpoint_pod", state="initialized") == {"beat"}
    # What is given without a value is not given.
    assert found(type="", state="", node="", namespace="", pod="", before="") == set(made)
    assert found(before=NOBODY) == set()


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("type=foo", "type"),
        ("type=checkpoint", "type"),
        ("state=foo", "state"),
        ("state=not_found", "state"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=-1", "limit"),
        ("limit=many", "limit"),
        ("limit=99999999999999999999999", "limit"),
        ("before=x", "before"),
        ("before=%00", "before"),
        ("node=%00", "node"),
        ("pod=%00", "pod"),
        ("namespace=%0a", "namespace"),
        (f"node={'x' * 129}", "node"),
    ],
)
def test_what_cannot_be_asked_for(stage: Stage, query: str, word: str) -> None:
    answer = stage.api.get(f"/v2/actions?{query}")
    assert answer.status == 400, answer.text
    assert answer.json()["code"] == "400"
    assert word in answer.json()["message"]


def test_the_latest_action_of_a_pod(stage: Stage) -> None:
    web = pod("web")
    with stage.node(web):
        assert stage.api.get(f"/v2/actions/from_pod/{web.ref.uid}").status == 404
        first = stage.ready(web)
        assert stage.api.get(f"/v2/actions/from_pod/{web.ref.uid}").text == first
        second = stage.ready(web)
        # A restore is of what gets a UID of its own: the pod's latest is what can be restored.
        restored = accepted(stage.api, "restore", {"action_id": first, "reason": "manual"})
        stage.api.wait_state(restored, "ready")
        answer = stage.api.get(f"/v2/actions/from_pod/{web.ref.uid}")
        assert answer.text == second
        assert answer.headers.get_content_type() == "text/plain"
    for nobody in ("nobody", "%00", "x" * 200, NOBODY):
        answer = stage.api.get(f"/v2/actions/from_pod/{nobody}")
        assert answer.status == 404
        assert answer.json()["code"] == "404"


def test_the_path_of_the_latest_checkpoint_of_a_name(stage: Stage) -> None:
    containers = (("app", "my-app"), ("side", ""))
    web = pod("named", "paths", containers=containers)

    def path(name: str) -> str:
        answer = stage.api.get(f"/v2/checkpoint/path?name={quote(name, safe='')}")
        assert answer.status in (200, 400), answer.text
        return answer.text if answer.status == 200 else ""

    with stage.node(web) as node:
        node.engine.containers = ("app", "side")
        assert path("my-app") == ""
        for _ in range(2):
            action_id = stage.ready(web)
            assert path("my-app") == path_of(action_id)
            # A container without a name of its own has its place's.
            assert path("paths/named/side") == path_of(action_id)
            assert path("paths/named/app") == ""
        # One that is under way or has failed is none.
        node.engine.gate.clear()
        later = stage.checkpoint(web)
        stage.api.wait_state(later, "checkpoint_created")
        assert path("my-app") == path_of(action_id)
        node.let_go()
        stage.api.wait_state(later, "ready")
        assert path("my-app") == path_of(later)


@pytest.mark.parametrize("query", ["", "?name=", "?name=unknown", "?name=%00", "?name=%ff", "?n=x"])
def test_a_name_that_nothing_has(stage: Stage, query: str) -> None:
    answer = stage.api.get(f"/v2/checkpoint/path{query}")
    assert answer.status == 400
    assert answer.json()["code"] == "400"


def test_the_latest_is_the_one_that_was_ready_last(sqlite_stage: Stage) -> None:
    names = [
        NameRow(name="by-time", action_id=str(uuid.uuid4()), path=f"memory:/{ready}", ready=ready)
        for ready in (2, 3, 1)
    ]
    put(sqlite_stage.api, *names)
    assert sqlite_stage.api.get("/v2/checkpoint/path?name=by-time").text == "memory:/3"


def test_all_of_one_action(stage: Stage) -> None:
    web = pod("web")
    with stage.node(web, open_gate=False) as node:
        action_id = stage.checkpoint(web)
        early = stage.api.wait_state(action_id, "checkpoint_created")
        assert (early["total_duration"], early["total_io"]) == (None, None)
        node.let_go()
        done = stage.api.wait_state(action_id, "ready")
    # In the order in which they came, which no database keeps of an object.
    assert list(done["phases"].items()) == list(PHASES.items())
    assert timeline(done) == [
        "initialized", "processing", "checkpoint_created", "ready",
    ]  # fmt: skip
    sequences = [step["sequence"] for step in done["timeline"]]
    assert sequences == sorted(set(sequences))
    times = [step["time"] for step in done["timeline"]]
    assert times == sorted(times)
    assert times[-1] == done["checkpoint_completed_timestamp"]
    assert done["containers"] == ["app"]
    outcome = done["outcome"]
    assert (outcome["bytes_raw"], outcome["bytes_stored"]) == (4096, 1024)
    assert outcome["phases"] == PHASES
    listed = stage.api.get("/v2/actions?limit=1000").json()
    assert [each for each in listed if each["action_id"] == action_id] == [
        {key: done[key] for key in listed[0]}
    ]


@pytest.mark.parametrize("action_id", [NOBODY, "x", "%00", "..", NOBODY.replace("0", "A")])
def test_an_action_that_nobody_asked_for(stage: Stage, action_id: str) -> None:
    for path in (
        f"/v2/checkpoint/status/{action_id}",
        f"/v2/actions/{action_id}",
        f"/v2/actions/{action_id}/events",
    ):
        answer = stage.api.get(path)
        assert answer.status == 404, path
        assert answer.json()["code"] == "404"
