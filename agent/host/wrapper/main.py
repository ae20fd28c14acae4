"""What becomes of a container that asks for a checkpoint: it comes back, starts cold, or fails."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import suppress

from agent.host import aside
from agent.host.wrapper.arguments import Create, Unknown
from agent.host.wrapper.attempt import Attempt, Cold, Refused
from agent.host.wrapper.connection import HungUp, connect
from agent.host.wrapper.facts import Facts
from agent.host.wrapper.records import Records

# Not typing's, which takes 5 ms to import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main(runc: str, socket: str, patience: float, words: list[str]) -> NoReturn:
    """Do what runc was called for.

    Args:
        runc: the real one.
        socket: the agent's; what became of earlier containers is written down beside it.
        patience: seconds that an agent which does not listen is waited for.
        words: runc's arguments.
    """
    # Python ignores it, and runc and the container would inherit that.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        create = Create(words)
    except Unknown:
        _become(runc, words)
    facts = Facts(create.bundle)
    # A pod's annotations are on its sandbox as well.
    if not (facts.is_container and facts.sandbox and facts.name):
        _become(runc, words)
    records = Records(f"{os.path.dirname(socket)}/restores", facts)
    try:
        agent = connect(socket, patience)
        if agent is None:
            _decide(create, facts, records, f"no agent listens at {socket}")
        _restore(Attempt(create, facts, runc, agent), create, facts, records)
    except Cold:
        _become(runc, words)
    except Refused as reason:
        _complain(create, f"restoring {facts.name}: {reason}")
        os._exit(1)
    os._exit(0)


def _restore(attempt: Attempt, create: Create, facts: Facts, records: Records) -> None:
    """Raises Cold and Refused, with everything undone."""
    try:
        attempt.run()
    except (Cold, Refused):
        attempt.undo()
        raise
    except HungUp as reason:
        attempt.undo()
        _decide(create, facts, records, f"the agent gave it up: {reason}")
    except (KeyError, TypeError, ValueError) as error:
        attempt.undo()
        _decide(create, facts, records, f"the agent is of another version: {error!r}")
    except OSError as error:
        attempt.undo()
        _decide(create, facts, records, str(error))


def _decide(create: Create, facts: Facts, records: Records, reason: str) -> NoReturn:
    """What to do without the agent, which finds the reason when it is back."""
    if records.forbid_cold():
        raise Refused(f"{reason}; a cold start is not wanted")
    if not records.is_restart():
        _recover(facts)
    with suppress(OSError):  # the container matters more than what is known of it
        records.note_cold(create.container, reason)
    raise Cold(reason)


def _recover(facts: Facts) -> None:
    """Make the pod's volumes what they were before an attempt that was killed at both ends."""
    try:
        for path in facts.volumes():
            aside.recover(path)
    except OSError as error:
        raise Refused(f"its volumes: {error}") from None


def _become(runc: str, words: list[str]) -> NoReturn:
    os.execvp(runc, [runc, *words])  # noqa: S606


def _complain(create: Create, message: str) -> None:
    """As runc does: to its log, where the engine looks, and to whoever reads along."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    line = json.dumps({"level": "error", "msg": message, "time": now})
    if not create.logs_json:
        line = f'time="{now}" level=error msg={json.dumps(message)}'
    if create.log:
        with suppress(OSError), open(create.log, "a") as file:
            file.write(line + "\n")
    sys.stderr.write(f"checkpoint-runc: {message}\n")
    sys.stderr.flush()
