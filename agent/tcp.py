"""What becomes of TCP connections: one word for users, three options for CRIU.

``established`` repairs them, ``close`` gives them up, ``skip-in-flight`` repairs what is connected
and leaves out what is only about to be: connections that nobody has accepted yet.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final, Literal, get_args

Policy = Literal["established", "close", "skip-in-flight"]
POLICIES: Final[tuple[Policy, ...]] = get_args(Policy)

_ESTABLISHED, _CLOSE, _SKIP = FIELDS = ("tcp_established", "tcp_close", "tcp_skip_in_flight")

# CRIU refuses to dump a listening socket that has connections waiting unless it may skip them; who
# gives all connections up has no reason to be refused because of these.
_FLAGS: Final[Mapping[Policy, tuple[bool, bool, bool]]] = {
    "established": (True, False, False),
    "close": (False, True, True),
    "skip-in-flight": (True, False, True),
}

# What a pod gets that nobody has said anything about. It leaves every choice to the restore, and a
# pod that is busy is never refused: between the freeze and CRIU's lock on the network lie 0.1 s, in
# which the kernel goes on to connect clients to a server that cannot accept them.
FOR_PODS: Final[Policy] = "skip-in-flight"


def flags(policy: Policy) -> dict[str, bool]:
    """CRIU's three options for a policy."""
    return dict(zip(FIELDS, _FLAGS[policy], strict=True))


def policy_of(value: object) -> Policy:
    """Raises ValueError for what is no policy."""
    for policy in POLICIES:
        if value == policy:
            return policy
    shown = json.dumps(value)
    if len(shown) > 40:
        shown = f"{shown[:40]}..."
    raise ValueError(f"{shown} is none of {', '.join(POLICIES)}")


def chosen(policy: Policy | None, given: Mapping[str, bool]) -> dict[str, bool]:
    """The options that a policy, or some of CRIU's own options, decide; none when none is given.

    Of CRIU's own, repairing and giving up take each other's place.

    Raises:
        ValueError: what is given contradicts itself; says how.
    """
    if policy is not None:
        decided = flags(policy)
        for name, value in given.items():
            if value != decided[name]:
                raise ValueError(f"{policy} contradicts {name} = {str(value).lower()}")
        return decided
    if given.get(_ESTABLISHED) and given.get(_CLOSE):
        raise ValueError(f"{_ESTABLISHED} contradicts {_CLOSE}")
    decided = dict(given)
    for one, other in ((_ESTABLISHED, _CLOSE), (_CLOSE, _ESTABLISHED)):
        if given.get(one):
            decided[other] = False
    return decided
