"""Mutual TLS from files: who has no certificate of the right authority is out."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

import grpc

from agent.errors import InvalidArgument

_MISSING: Final = "missing: the agent speaks TCP over mutual TLS only"


def client_credentials(
    certificate: Path | None, key: Path | None, server_ca: Path | None
) -> grpc.ChannelCredentials:
    """A client that shows ``certificate`` and believes servers that ``server_ca`` has signed.

    Raises:
        InvalidArgument: one of the three is missing or unusable; names the option.
    """
    names = ("--agent-tls-cert", "--agent-tls-key", "--agent-tls-ca")
    chain, secret, authority = read_files(names, (certificate, key, server_ca))
    return grpc.ssl_channel_credentials(authority, secret, chain)


def read_files(
    names: tuple[str, str, str], paths: tuple[Path | None, Path | None, Path | None]
) -> tuple[bytes, bytes, bytes]:
    """The contents of certificate, key and authority, which fit together.

    gRPC itself says of a bad file only that it failed.

    Raises:
        InvalidArgument: one is missing or unusable; says which, by its name among ``names``.
    """
    found: list[Path] = []
    for name, path in zip(names, paths, strict=True):
        if path is None:
            raise InvalidArgument(name, _MISSING)
        found.append(path)
    contents = [_bytes(name, path) for name, path in zip(names, found, strict=True)]
    certificate, key, authority = found
    context = ssl.create_default_context()
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as error:
        raise InvalidArgument(names[0], f"{certificate} and {key} do not fit: {error}") from error
    try:
        context.load_verify_locations(authority)
    except OSError as error:
        raise InvalidArgument(names[2], f"{authority} is no certificate: {error}") from error
    return contents[0], contents[1], contents[2]


def _bytes(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidArgument(name, f"{path}: {error.strerror}") from error


def _no_password() -> str:
    """Nobody is there to be asked for one."""
    return ""
