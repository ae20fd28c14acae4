"""The contract as schemathesis reads it: what may be sent, and what may come back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis.configuration import set_hypothesis_home_dir
from schemathesis.config import SchemathesisConfig
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import ignored_auth

from deploy.contract import CONTRACT
from tests.contract.live import PODS, Live

# What a server may answer to everything, beyond what the contract has for an operation.
REFUSALS: Final = ("400", "401")

# Generated requests for each operation, at most; with those that the contract itself suggests
# (limits, missing and wrong values), 550 in all.
EXAMPLES: Final = 40

# Hypothesis keeps tables of Unicode; nothing else, as there is no database of failures.
set_hypothesis_home_dir(Path(__file__).resolve().parents[2] / ".cache" / "hypothesis")

# The same requests each time, at whatever speed. One thread generates and waits for the server, so
# that a machine under load only looks like a slow strategy.
SETTINGS: Final = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

_CONFIG: Final = {
    "seed": 1,
    "generation": {
        "deterministic": True,
        "database": "none",
        "max-examples": EXAMPLES,
        # The token is sent with everything; the check `ignored_auth` leaves it out by itself.
        "with-security-parameters": False,
    },
    "phases": {
        # What was answered before would make the requests of one run differ from the next one's.
        "fuzzing": {
            "extra-data-sources": {"responses": False},
            "error-feedback": {"enabled": False},
        },
    },
    "checks": {
        # What has the contract's form can still name a pod or an action that is not there.
        "positive_data_acceptance": {"expected-statuses": ["2xx", "400", "404"]},
        "negative_data_rejection": {"expected-statuses": ["400", "405"]},
    },
    "operations": [
        {
            # The server has GET /v2/actions/ID as well, and no action of this id: 404.
            "include-path": "/v2/actions/upload",
            "phases": {"coverage": {"unexpected-methods": ["put", "delete", "patch", "trace"]}},
        }
    ],
    "dictionaries": {"pods": {"values": list(PODS)}},
    # Pods that are there, most of the time.
    "parameters": {
        "body.pod_id": {"dictionary": "pods", "probability": 0.7},
        "path.id": {"dictionary": "pods", "probability": 0.5},
    },
}


def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(CONTRACT.read_text())
    refused = document["paths"]["/v2/checkpoint/pod"]["post"]["responses"]["400"]
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"] = dict.fromkeys(REFUSALS, refused) | operation["responses"]
    # Where only one field of a request is varied, the pod is one that is there.
    pod = document["components"]["schemas"]["CheckpointPod"]["properties"]["pod_id"]
    pod["examples"] = [PODS[0]]
    return document


CASES: Final = schemathesis.openapi.from_dict(
    _document(), config=SchemathesisConfig.from_dict(_CONFIG)
)


def ask(case: schemathesis.Case[Any], live: Live) -> Response:
    """Send it with a good token, and check the answer in every way that schemathesis knows."""
    # Once for each operation: whoever shows many wrong tokens is not listened to any more.
    known = [ignored_auth] if case.operation.label in live.proven else []
    answer = case.call_and_validate(
        base_url=live.url, session=live.session, headers=live.headers, excluded_checks=known
    )
    if answer.status_code == 200:
        live.proven.add(case.operation.label)
    return answer
