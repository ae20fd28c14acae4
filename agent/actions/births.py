"""Which process an action means that names a pid.

While the action waits for its turn, over a restart of the agent or of the machine, that process may
end and another one get its pid. It is noted when the action is accepted, beside the request.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace

from agent.host.boot import birth_of
from agent.messages.model import ActionRequest, CheckpointSpec
from agent.targets import Birth, ProcessTarget


def identified(request: ActionRequest) -> ActionRequest:
    """The same request, of the process that has the pid now."""
    target = _process(request)
    return request if target is None else _of(request, birth_of(target.pid))


def birth_text(request: ActionRequest) -> str | None:
    """What is written down of it; None where no process is meant."""
    target = _process(request)
    return json.dumps(asdict(target.birth)) if target is not None and target.birth else None


def with_birth(request: ActionRequest, text: str | None) -> ActionRequest:
    """A request as it was accepted. Agents of older versions have not written down anything."""
    return request if text is None else _of(request, Birth(**json.loads(text)))


def _process(request: ActionRequest) -> ProcessTarget | None:
    target = request.spec.target if isinstance(request.spec, CheckpointSpec) else None
    return target if isinstance(target, ProcessTarget) else None


def _of(request: ActionRequest, birth: Birth) -> ActionRequest:
    target, spec = _process(request), request.spec
    if target is None or not isinstance(spec, CheckpointSpec):
        return request
    return replace(request, spec=replace(spec, target=replace(target, birth=birth)))
