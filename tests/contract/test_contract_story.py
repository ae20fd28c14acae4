"""What clients do with the answers: actions followed from one operation to the next, in any order.

The contract has no links, and its ids come as plain text; so how they go together is told here, and
every request and answer is checked against the contract all the same.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, rule, run_state_machine_as_test
from schemathesis.core.transport import Response

from tests.contract.cases import CASES, SETTINGS, ask
from tests.contract.live import PODS, Live, checkpoint_name
from tests.waiting import PATIENCE

STORIES: Final = 15
STEPS: Final = 15

CHECKPOINTS = "/v2/checkpoint/pod"
STATUS = "/v2/checkpoint/status/{action_id}"

PODS_THERE = st.sampled_from(PODS)
KINDS = st.sampled_from(["simple", "rootfs", "rootfsonly"])
REASONS = st.sampled_from(["nodeTermination", "nodeUnschedulable", "manual"])
OVERRIDES = st.fixed_dictionaries(
    {},
    optional={
        "asynchronous": st.booleans(),
        "compression": st.sampled_from(["zstd", "lz4", "none", None]),
        "streams": st.integers(0, 8),
    },
)
# Anything that JSON has, small; but for the one character that PostgreSQL cannot keep.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
JSON: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


class Story(RuleBasedStateMachine):
    """One client's, on an API that has seen others."""

    api: ClassVar[Live]
    checkpoints: Bundle[str] = Bundle("checkpoints")
    restores: Bundle[str] = Bundle("restores")

    def __init__(self) -> None:
        super().__init__()
        # The last checkpoint of each pod, and the pod of each checkpoint.
        self.latest: dict[str, str] = {}
        self.pods: dict[str, str] = {}

    def post(self, path: str, body: dict[str, Any]) -> str:
        case = CASES[path]["POST"].Case(body=body, media_type="application/json")
        return str(_good(ask(case, self.api)).text)

    def state(self, action: str) -> str:
        case = CASES[STATUS]["GET"].Case(path_parameters={"action_id": action})
        return str(_good(ask(case, self.api)).json()["status"])

    def becomes_ready(self, action: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while (state := self.state(action)) != "ready":
            assert state in ("initialized", "processing", "checkpoint_created")
            assert time.monotonic() < deadline, f"{action} is {state} for ever"
            time.sleep(0.01)

    @rule(target=checkpoints, pod=PODS_THERE, kind=KINDS, overrides=st.none() | OVERRIDES)
    def checkpoint(self, pod: str, kind: str, overrides: Mapping[str, object] | None) -> str:
        """Ids are bare UUIDs, and no two requests have the same."""
        body = {"pod_id": pod, "kind": kind, "reason": "manual", "overrides": overrides}
        action = self.post(CHECKPOINTS, body)
        assert str(uuid.UUID(action)) == action
        assert action not in self.pods
        self.latest[pod], self.pods[action] = action, pod
        return action

    @rule(action=checkpoints)
    def status(self, action: str) -> None:
        """It is known from the moment it has an id."""
        assert self.state(action) not in ("not_found", "error")

    @rule(pod=PODS_THERE)
    def from_pod(self, pod: str) -> None:
        """A pod's latest action; a restore makes another pod of it."""
        if pod in self.latest:
            case = CASES["/v2/actions/from_pod/{id}"]["GET"].Case(path_parameters={"id": pod})
            assert _good(ask(case, self.api)).text == self.latest[pod]

    @rule(action=checkpoints)
    def listed(self, action: str) -> None:
        """Actions of a type are listed, the newest first; the page ends long before a story."""
        case = CASES["/v2/actions"]["GET"].Case(query={"type": "checkpoint_pod"})
        found = _good(ask(case, self.api)).json()
        assert action in [each["action_id"] for each in found]
        assert {each["type"] for each in found} == {"checkpoint_pod"}

    @rule(action=checkpoints)
    def path(self, action: str) -> None:
        """Where a container's latest checkpoint lies, by the name that it gives them."""
        self.becomes_ready(action)
        case = CASES["/v2/checkpoint/path"]["GET"].Case(
            query={"name": checkpoint_name(self.pods[action])}
        )
        assert _good(ask(case, self.api)).text

    @rule(action=checkpoints, pod_spec=JSON, claim=JSON)
    def upload(self, action: str, pod_spec: object, claim: object) -> None:
        """A pod's specification is any JSON."""
        body = {"action_id": action, "status": "ready", "pod_spec": pod_spec}
        self.post("/v2/actions/upload", body | {"persistent_volume_claim": claim})

    @rule(target=restores, action=checkpoints, reason=REASONS)
    def restore(self, action: str, reason: str) -> str:
        """A checkpoint that is ready can be restored, which is another action."""
        self.becomes_ready(action)
        restored = self.post("/v2/restore/pod", {"action_id": action, "reason": reason})
        assert str(uuid.UUID(restored)) == restored != action
        return restored

    @rule(action=restores)
    def restored(self, action: str) -> None:
        """A restore has states as a checkpoint has."""
        self.becomes_ready(action)


def _good(answer: Response) -> Response:
    assert answer.status_code == 200, answer.text
    return answer


def test_story(live: Live) -> None:
    class Here(Story):
        api = live

    # A story is not made shorter when it fails: one that waits for a state would take minutes.
    told = settings(
        SETTINGS, max_examples=STORIES, stateful_step_count=STEPS, phases=[Phase.generate]
    )
    run_state_machine_as_test(Here, settings=told)

    everything = {
        f"{method.upper()} {path}"
        for path, item in CASES.raw_schema["paths"].items()
        for method in item
    }
    assert live.proven == everything, "operations that never worked"
