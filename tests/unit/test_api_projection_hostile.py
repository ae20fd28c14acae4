"""Events that no agent writes: each is taken over as far as it can be, and none stops the others.

An event that a database refuses would be read again for ever, and nothing after it.
"""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from agent.api.answers import action, detail
from agent.api.database import Database, projection
from agent.api.database import actions as table
from agent.api.placement import names_of
from agent.api.schemas import ActionDetail
from agent.events import Position, StoredEvent
from agent.messages.model import ActionType, Failure, Progress, State
from agent.targets import PodRef
from tests.api_nodes import pod
from tests.api_rows import checkpointed, restored, row, said

ID = "11111111-2222-4333-8444-555555555555"
START = Position("", 0)


async def taken(
    database: Database, *events: StoredEvent, names: Mapping[str, str] | None = None
) -> ActionDetail:
    """All that is known of action ID after these events, as it goes over the wire."""
    assert await projection.claim(database, "me") == START
    after = Position("s", 1)
    assert await projection.apply(database, "me", START, after, events, lambda *_: names or {})
    async with database.read() as session:
        found = await table.get(session, ID)
        assert found is not None
        # A list that one action cannot be shown in shows none.
        json.loads(action(found).model_dump_json())
        shown = detail(found, await table.transitions(session, ID))
        json.loads(shown.model_dump_json())
        return shown


LONG = "x" * 10_000
# Four bytes each, and nothing in it that could be made shorter.
WIDE = "".join(chr(0x20000 + number * 7919 % 0xA000) for number in range(10_000))
TEXTS = {"NUL": "a\0b", "only NUL": "\0", "long": LONG, "wide": WIDE, "half": "\ud800"}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_any_text_in_any_place(database: Database, text: str) -> None:
    outcome = checkpointed(
        text, path=text, name=text, containers=(text, "app"), platform=text, codec=text,
        fallback_reason=text, phases={text: 1.0},
    )  # fmt: skip
    ready = said(
        ID, 2, State.READY, pod=PodRef(text, text, text), checkpoint=outcome,
        progress=Progress(text),
    )  # fmt: skip
    shown = await taken(database, replace(ready, cluster=text, node=text))
    assert shown.status == "ready"
    assert "\0" not in shown.model_dump_json()


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_any_text_in_an_error(database: Database, text: str) -> None:
    failure = Failure(text, text, text, text, text, text, {text: text})
    shown = await taken(database, said(ID, 1, State.ERROR, failure=failure))
    assert shown.status == "error"
    assert len(shown.details["error"]["log_tail"]) == len(text)


@pytest.mark.parametrize(
    "text", ["a\0b", "\0", LONG, WIDE], ids=["NUL", "only NUL", "long", "wide"]
)
async def test_any_name_in_the_inventory(database: Database, text: str) -> None:
    """Names of checkpoints come from containers' environment, in which anything may be."""
    ready = said(ID, 1, State.READY, pod=PodRef("u", "n", "p"), checkpoint=checkpointed(ID))
    shown = await taken(database, ready, names=names_of(pod(containers=[("app", text)])))
    assert shown.status == "ready"


async def test_names_that_become_the_same(database: Database) -> None:
    outcome = checkpointed(ID, containers=("a", "b"))
    ready = said(ID, 1, State.READY, pod=PodRef("u", "n", "p"), checkpoint=outcome)
    shown = await taken(database, ready, names={"a": f"{LONG}a", "b": f"{LONG}b"})
    assert shown.status == "ready"


TIMES = (
    datetime.min.replace(tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC),
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime.max.replace(tzinfo=UTC),
)


@pytest.mark.parametrize("time", TIMES, ids=str)
async def test_any_time(database: Database, time: datetime) -> None:
    first = said(ID, 1, State.PROCESSING, time=time)
    ready = said(ID, 2, State.READY, time=time, checkpoint=checkpointed(ID))
    shown = await taken(database, first, ready)
    assert shown.status == "ready"
    assert shown.timeline[-1].time == time.isoformat().replace("+00:00", "Z")


NUMBERS: dict[str, dict[str, Any]] = {
    "most": {"bytes_raw": 2**63 - 1, "bytes_stored": 2**63 - 1, "wall_seconds": 2.0**62},
    "least": {"bytes_raw": -(2**63) + 1, "bytes_stored": -1, "wall_seconds": -1.5},
    "none": {"bytes_raw": 0, "bytes_stored": 0, "wall_seconds": 0.0, "frozen_seconds": 0.0},
    "fractions": {"wall_seconds": 1e-300, "frozen_seconds": 5e-324},
}


@pytest.mark.parametrize("numbers", NUMBERS.values(), ids=NUMBERS)
async def test_any_number(database: Database, numbers: dict[str, Any]) -> None:
    outcome = checkpointed(ID, **numbers)
    shown = await taken(database, said(ID, 2**63 - 1, State.READY, checkpoint=outcome))
    assert shown.total_io == outcome.bytes_stored


async def test_numbers_that_count_nothing(database: Database) -> None:
    shown = await taken(
        database,
        said(ID, -1, State.ERROR),
        said(ID, -5, State.ERROR),
        said(ID, 2**63, State.ERROR),
        said(ID, 2**200, State.ERROR),
        said(ID, 1, State.PROCESSING),
    )
    assert shown.status == "processing"


async def test_who_speaks_of_something_else_under_its_id(database: Database) -> None:
    """As of a restore whose pod has somebody else's action in its annotation."""
    other = str(uuid.uuid4())
    shown = await taken(
        database,
        said(ID, 1, State.PROCESSING),
        said(ID, 2, State.READY, type=ActionType.RESTORE, restore=restored("memory:/x")),
        said(other, 1, State.READY, type=ActionType.RESTORE, checkpoint=checkpointed(other)),
    )
    assert (shown.type, shown.status) == ("checkpoint_pod", "processing")


async def test_another_node_than_the_actions_own(database: Database) -> None:
    stranger = said(ID, 2, State.ERROR)
    shown = await taken(
        database, said(ID, 1, State.PROCESSING), dataclasses.replace(stranger, node="stranger")
    )
    assert shown.status == "processing"


async def test_a_node_of_that_name_in_another_cluster(database: Database) -> None:
    """It may publish for its own cluster, under any id."""
    stranger = dataclasses.replace(said(ID, 2, State.ERROR), cluster="other")
    shown = await taken(database, said(ID, 1, State.PROCESSING), stranger)
    assert shown.status == "processing"
    waiting = row(type="restore_pod", node="", restored_from="x", pod_name="web")
    async with database.write() as session:
        session.add(waiting)
    pod_of = PodRef("u", "", "web")
    ready = said(waiting.action_id, 1, State.READY, type=ActionType.RESTORE, pod=pod_of)
    claim = dataclasses.replace(ready, cluster="other", node="stranger")
    here, next_one = Position("s", 1), Position("s", 2)
    assert await projection.apply(database, "me", here, next_one, [claim], lambda *_: {})
    async with database.read() as session:
        found = await table.get(session, waiting.action_id)
    assert found is not None
    assert (found.state, found.node) == ("initialized", "")


async def test_ready_with_nothing_to_show_for_it(database: Database) -> None:
    shown = await taken(database, said(ID, 1, State.READY))
    assert (shown.status, shown.total_io, shown.outcome) == ("ready", None, None)


async def test_what_is_no_event_is_passed_over(database: Database) -> None:
    nothing = StoredEvent(1, None, "", "", b"\xff")
    shown = await taken(database, nothing, said(ID, 1, State.READY), nothing)
    assert shown.status == "ready"
