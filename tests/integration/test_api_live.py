"""GET /v2/actions/{id}/events: an action as it is, and again whenever it changes, to its end."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.api_nodes import pod
from tests.api_servers import Api
from tests.api_stages import Stage, stage_on
from tests.servers.nats import NatsServer
from tests.waiting import eventually

# Seconds. What a test waits for in a stream, at most.
SECONDS = 20.0


@contextmanager
def watching(api: Api, action_id: str) -> Iterator[Iterator[dict[str, Any]]]:
    """What a stream says of an action, one after the other, until it ends."""
    connection = http.client.HTTPConnection(api.address, timeout=SECONDS)
    try:
        headers = {"Authorization": f"Bearer {api.token}"}
        connection.request("GET", f"/v2/actions/{action_id}/events", headers=headers)
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.headers.get_content_type() == "text/event-stream"
        yield _events(answer)
    finally:
        connection.close()


def _events(answer: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    fields: dict[str, str] = {}
    deadline = time.monotonic() + SECONDS
    for line in answer:
        assert time.monotonic() < deadline, f"nothing but comments for {SECONDS} s"
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name:
            fields[name] = value
            continue
        # Comments keep the connection open.
        if fields.get("event") == "action":
            yield json.loads(fields["data"])
            deadline = time.monotonic() + SECONDS
        fields = {}


def states(events: Iterator[dict[str, Any]]) -> list[str]:
    """Those that differ from the one before."""
    found: list[str] = []
    for each in events:
        if found[-1:] != [each["status"]]:
            found.append(each["status"])
    return found


def test_it_shows_what_is_and_every_change_and_ends(stage: Stage) -> None:
    web = pod("web")
    with stage.node(web, open_gate=False) as node:
        action_id = stage.checkpoint(web)
        stage.api.wait_state(action_id, "checkpoint_created")
        with watching(stage.api, action_id) as events:
            # The same as a look at it; nothing more happens before it is let go.
            first = next(events)
            assert first == stage.api.get(f"/v2/actions/{action_id}").json()
            assert first["status"] == "checkpoint_created"
            node.let_go()
            rest = list(events)
        assert rest[-1]["status"] == "ready"
        assert rest[-1] == stage.api.get(f"/v2/actions/{action_id}").json()


def test_all_states_come_to_whoever_is_there_from_the_beginning(sqlite_stage: Stage) -> None:
    web = pod("web")
    with sqlite_stage.node(web, open_gate=False) as node:
        blocking = sqlite_stage.checkpoint(web)
        sqlite_stage.api.wait_state(blocking, "checkpoint_created")
        # It waits for its turn, for as long as the other one works on the pod.
        action_id = sqlite_stage.checkpoint(web)
        with watching(sqlite_stage.api, action_id) as events:
            assert next(events)["status"] in ("initialized", "processing")
            node.let_go()
            assert states(events)[-1] == "ready"
        done = sqlite_stage.api.get(f"/v2/actions/{action_id}").json()
        assert len(done["timeline"]) == 4


def test_what_has_ended_is_shown_once(stage: Stage) -> None:
    web, gone = pod("web"), pod("gone", uid=f"unknown-{pod().ref.uid}")
    with stage.node(web, gone):
        ready, failed = stage.ready(web), stage.checkpoint(gone)
        stage.api.wait_state(failed, "error")
        for action_id, state in ((ready, "ready"), (failed, "error")):
            with watching(stage.api, action_id) as events:
                assert [each["status"] for each in events] == [state]


def test_many_watch_the_same_action(sqlite_stage: Stage) -> None:
    web = pod("web")
    with sqlite_stage.node(web, open_gate=False) as node, ThreadPoolExecutor(30) as pool:
        action_id = sqlite_stage.checkpoint(web)
        sqlite_stage.api.wait_state(action_id, "checkpoint_created")

        def watch(_: int) -> list[str]:
            with watching(sqlite_stage.api, action_id) as events:
                return states(events)

        seen = [pool.submit(watch, number) for number in range(30)]
        # More than there are connections to the database: nobody keeps one.
        assert sqlite_stage.api.get("/v2/actions").status == 200
        node.let_go()
        assert {each.result()[-1] for each in seen} == {"ready"}


def test_streams_end_when_the_api_stops(broker: NatsServer, tmp_path: Path) -> None:
    web = pod("web")
    with stage_on(broker, tmp_path) as stage, ThreadPoolExecutor(5) as pool:
        api = stage.api
        with stage.node(web, open_gate=False):
            action_id = stage.checkpoint(web)
            api.wait_state(action_id, "checkpoint_created")

            def watch(_: int) -> list[str]:
                with watching(api, action_id) as events:
                    began.append(next(events)["status"])
                    return states(events)

            began: list[str] = []
            seen = [pool.submit(watch, number) for number in range(5)]
            eventually(lambda: len(began) == 5, "all five watching")
            assert api.stop() == 0
            # In order: each was told all that there was, and then that this is all.
            assert [each.result() for each in seen] == [[]] * 5
    assert [line["exit_code"] for line in api.lines("stopped")] == [0]
    # None of them had to be cut off, as is done with answers that are under way after 8 seconds.
    assert "timeout graceful shutdown exceeded" not in api.log.read_text()
