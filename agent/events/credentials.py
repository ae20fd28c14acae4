"""Who the agent is to the broker: secrets from files, read anew for every connection.

So a rotated secret needs no restart. No error repeats what is in a file.
"""

from __future__ import annotations

import base64
import binascii
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

import nkeys  # type: ignore[import-untyped]
from pydantic import SecretStr

from agent.errors import InvalidArgument
from agent.settings import Nats

# Of a file as `nsc generate creds` writes it.
_JWT = re.compile(r"-+BEGIN NATS USER JWT-+\s+(\S+)\s+-+END")
_SEED = re.compile(r"-+BEGIN USER NKEY SEED-+\s+(\S+)\s+-+END")


class Options(TypedDict, total=False):
    """What nats-py takes for it."""

    user: str
    password: str
    token: str
    nkeys_seed_str: str
    user_jwt_cb: Callable[[], bytes]
    signature_cb: Callable[[str], bytes]
    tls: ssl.SSLContext


def read(settings: Nats) -> Options:
    """The options of one connection.

    Raises:
        InvalidArgument: a file is missing, or does not hold what it should.
    """
    options: Options = {}
    if settings.user is not None:
        options["user"] = settings.user
        options["password"] = _secret(settings.password, settings.password_file, "password_file")
    if settings.token or settings.token_file:
        options["token"] = _secret(settings.token, settings.token_file, "token_file")
    if settings.nkey_file is not None:
        seed = _text(settings.nkey_file, "nkey_file").strip()
        _signer(seed, "nkey_file")
        options["nkeys_seed_str"] = seed
    if settings.creds_file is not None:
        jwt, seed = _creds(settings.creds_file)
        options["user_jwt_cb"] = jwt.encode
        options["signature_cb"] = _signer(seed, "creds_file")
    if wants_tls(settings):
        options["tls"] = _tls(settings)
    return options


def wants_tls(settings: Nats) -> bool:
    """Whether nothing may be said to a broker in the clear."""
    given = settings.tls_ca or settings.tls_cert
    return bool(given) or any(url.startswith(("tls://", "wss://")) for url in settings.servers)


def _secret(value: SecretStr | None, file: Path | None, key: str) -> str:
    if value is not None:
        return value.get_secret_value()
    return _text(file, key).strip() if file is not None else ""


def _text(file: Path, key: str) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no text"
        raise InvalidArgument(f"[nats] {key}", f"{file}: {reason}") from None


def _creds(file: Path) -> tuple[str, str]:
    text = _text(file, "creds_file")
    jwt, seed = _JWT.search(text), _SEED.search(text)
    if jwt is None or seed is None:
        raise InvalidArgument("[nats] creds_file", f"{file}: holds no user's JWT and seed")
    return jwt[1], seed[1]


def _signer(seed: str, key: str) -> Callable[[str], bytes]:
    try:
        pair = nkeys.from_seed(bytearray(seed.encode()))
    except (nkeys.NkeysError, binascii.Error, ValueError):
        raise InvalidArgument(f"[nats] {key}", "holds no seed of an nkey") from None
    return lambda nonce: base64.b64encode(pair.sign(nonce.encode()))


def _tls(settings: Nats) -> ssl.SSLContext:
    key = "tls_ca"
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca)
        if settings.tls_cert is not None:
            key = "tls_cert"
            context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except OSError as error:  # ssl.SSLError is one
        reason = error.strerror or str(error)
        raise InvalidArgument(f"[nats] {key}", f"{getattr(settings, key)}: {reason}") from None
    return context
