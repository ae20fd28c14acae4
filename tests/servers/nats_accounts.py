"""An operator, an account and a user of NATS, each signed by the one before, as `nsc` does it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from dataclasses import dataclass

import nkeys  # type: ignore[import-untyped]


@dataclass(frozen=True, slots=True)
class Account:
    """``options`` go into the server's configuration, ``creds`` into a client's file."""

    options: dict[str, object]
    creds: str


def nkey_pair(prefix: int = nkeys.PREFIX_BYTE_USER) -> nkeys.KeyPair:
    """A new pair; of a user unless told otherwise."""
    return nkeys.from_seed(nkeys.encode_seed(os.urandom(32), prefix))


def account() -> Account:
    """One account that may use JetStream without limits, and one user of it."""
    operator = nkey_pair(nkeys.PREFIX_BYTE_OPERATOR)
    owner, system = (nkey_pair(nkeys.PREFIX_BYTE_ACCOUNT) for _ in range(2))
    user = nkey_pair()
    may_all = dict.fromkeys(["subs", "data", "payload", "imports", "exports", "conn", "leaf"], -1)
    jetstream = dict.fromkeys(["mem_storage", "disk_storage", "streams", "consumer"], -1)
    user_jwt = _jwt(
        owner, user, {"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1}
    )
    options = {
        "operator": _jwt(operator, operator, {"type": "operator", "version": 2}),
        "resolver": "MEMORY",
        # JetStream does not start without an account for the server itself.
        "system_account": system.public_key.decode(),
        "resolver_preload": {
            each.public_key.decode(): _jwt(
                operator, each, {"type": "account", "version": 2, "limits": limits}
            )
            for each, limits in ((owner, may_all | jetstream), (system, may_all))
        },
    }
    return Account(options, _CREDS.format(jwt=user_jwt, seed=user.seed.decode()))


_CREDS = """\
-----BEGIN NATS USER JWT-----
{jwt}
------END NATS USER JWT------

-----BEGIN USER NKEY SEED-----
{seed}
------END USER NKEY SEED------
"""


def _jwt(issuer: nkeys.KeyPair, subject: nkeys.KeyPair, claims: dict[str, object]) -> str:
    """A token by which ``issuer`` vouches for ``subject``."""
    body = {
        "iat": 1_700_000_000,
        "iss": issuer.public_key.decode(),
        "name": str(claims["type"]),
        "sub": subject.public_key.decode(),
        "nats": claims,
    }
    body["jti"] = base64.b32encode(hashlib.sha256(json.dumps(body).encode()).digest()).decode()
    head = {"typ": "JWT", "alg": "ed25519-nkey"}
    signed = ".".join(_base64(json.dumps(part).encode()) for part in (head, body))
    return f"{signed}.{_base64(issuer.sign(signed.encode()))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
