"""What an API's database says of actions, held against what their nodes have said on the broker."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from agent.messages.model import State
from bench.reports import Stalled, wait_until
from tests.api_servers import Api
from tests.servers.jetstream import Stream
from tests.servers.nats import NatsServer

Json = dict[str, Any]

# Codes of actions that the API has ended by itself.
GIVEN_UP = ("event_stream_failed", "never_sent", "never_taken", "node_lost")

# In the message id of an event that is told to who has published its action anew (proto/EVENTS.md).
_AGAIN = ".again."

_ORDER = [state.value for state in State]
_TERMINAL = [state.value for state in State if state.is_terminal]


def all_actions(api: Api) -> dict[str, Json]:
    """Every action that the API knows, by its id."""
    found: dict[str, Json] = {}
    path = "/v2/actions?limit=1000"
    while path:
        answer = api.get(path)
        assert answer.status == 200, answer.text
        found |= {each["action_id"]: each for each in answer.json()}
        path = answer.headers.get("Link", "").partition(">")[0].removeprefix("<")
    return found


def wait_ended(api: Api, seconds: float) -> dict[str, Json]:
    """All actions, once the last one has ended."""
    rows: dict[str, Json] = {}

    def ended() -> bool:
        rows.update(all_actions(api))
        return all(row["status"] in _TERMINAL for row in rows.values())

    try:
        wait_until(ended, "all actions ending", timeout=seconds)
    except Stalled as stalled:
        left = [row for row in rows.values() if row["status"] not in _TERMINAL]
        raise AssertionError(f"{stalled}: {left}") from None
    return rows


def events_of(broker: NatsServer) -> dict[str, list[Json]]:
    """What nodes have said of each action without progress, in order.

    Fails where an event came twice, in the wrong order, or after the last one; but whoever
    publishes an action anew after its end hears its last event anew.
    """
    by_action: defaultdict[str, list[Json]] = defaultdict(list)
    messages = Stream(broker, "ACTION_EVENTS").messages()
    assert set(Counter(each.message_id for each in messages).values()) <= {1}
    for message in messages:
        told = by_action[message.body["actionId"]]
        if _AGAIN in message.message_id and told:
            assert message.body == told[-1]
        else:
            told.append(message.body)
    for events in by_action.values():
        _assert_in_order([(int(event["sequence"]), event["state"]) for event in events])
    return {
        action_id: [event for event in events if "progress" not in event]
        for action_id, events in by_action.items()
    }


def assert_agreed(api: Api, rows: dict[str, Json], events: dict[str, list[Json]]) -> None:
    """Of every action that the API has not given up, both say the same."""
    for action_id, row in rows.items():
        if _given_up(row):
            continue
        detail = api.get(f"/v2/actions/{action_id}").json()
        told = [(step["sequence"], step["state"]) for step in detail["timeline"]]
        _assert_in_order(told)
        assert told == list(_steps(events[action_id])), action_id
        assert row["status"] == events[action_id][-1]["state"]


def assert_kept(accepted: set[str], rows: dict[str, Json]) -> None:
    """Nothing that a client was promised is lost, or was ended by the API."""
    assert accepted <= set(rows)
    broken = {each: rows[each]["details"]["error"] for each in accepted if _given_up(rows[each])}
    assert not broken


def assert_begun_once(events: dict[str, list[Json]]) -> None:
    """No node has begun an action twice."""
    for action_id, said in events.items():
        states = [event["state"] for event in said]
        assert states.count("processing") <= 1, action_id


def _given_up(row: Json) -> bool:
    error = row["details"]["error"]
    return error is not None and error["code"] in GIVEN_UP


def _steps(events: list[Json]) -> Iterator[tuple[int, str]]:
    """Each state with the first event of it."""
    seen = set()
    for event in events:
        if event["state"] not in seen:
            seen.add(event["state"])
            yield int(event["sequence"]), event["state"]


def _assert_in_order(steps: list[tuple[int, str]]) -> None:
    """Numbers count up, states go on, and nothing comes after an end."""
    numbers = [number for number, _ in steps]
    assert numbers == sorted(set(numbers)), steps
    ranks = [_ORDER.index(state) for _, state in steps]
    assert ranks == sorted(ranks), steps
    assert [state in _TERMINAL for _, state in steps].count(True) <= 1, steps
