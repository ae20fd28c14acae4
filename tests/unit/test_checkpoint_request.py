"""Requests that make no sense are refused before anything is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.checkpoint.request import CheckpointRequest, MemberRequest
from agent.errors import InvalidArgument
from agent.store.memory import MemoryStore
from agent.targets import ProcessTarget, RuncTarget

# What Python makes of a byte on the command line that is no UTF-8, in a name of Latin-1.
LATIN = "caf\udce9"


@pytest.mark.parametrize("field", ["name", "runc_root"])
def test_what_a_manifest_cannot_hold(field: str) -> None:
    root = Path("/run", LATIN if field == "runc_root" else "runc")
    request = CheckpointRequest(
        members=(MemberRequest(RuncTarget("web", root)), MemberRequest(ProcessTarget(1))),
        store=MemoryStore("request"),
        name=LATIN if field == "name" else "café",
    )
    with pytest.raises(InvalidArgument, match=f"{field}.*is not UTF-8"):
        request.check()
