"""The server's side of mutual TLS, with certificates that may be renewed while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import grpc

from agent.errors import InvalidArgument
from agent.logs import get_logger
from agent.rpc.tls import read_files

_log = get_logger(__name__)


def server_credentials(
    certificate: Path | None, key: Path | None, client_ca: Path | None
) -> grpc.ServerCredentials:
    """A server that shows ``certificate`` and takes clients whose own ``client_ca`` has signed.

    Files that are renewed count from the next connection on; as long as the new ones do not fit
    together, the ones before do.

    Raises:
        InvalidArgument: one of the three is missing or unusable; names the setting.
    """
    names = ("rpc.tls_cert", "rpc.tls_key", "rpc.tls_client_ca")
    paths = (certificate, key, client_ca)
    seen = _versions(paths)
    configuration = _configuration(read_files(names, paths))

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal seen
        now = _versions(paths)
        if now == seen:
            return None
        seen = now
        try:
            return _configuration(read_files(names, paths))
        except InvalidArgument as error:
            _log.error("renewed certificates cannot be used", reason=str(error))
            return None

    # Its types know nothing of the None that its documentation asks for.
    return grpc.dynamic_ssl_server_credentials(
        configuration,
        renewed,  # type: ignore[arg-type]
        require_client_authentication=True,
    )


def _configuration(contents: tuple[bytes, bytes, bytes]) -> grpc.ServerCertificateConfiguration:
    chain, secret, authority = contents
    return grpc.ssl_server_certificate_configuration([(secret, chain)], root_certificates=authority)


def _versions(paths: Sequence[Path | None]) -> list[tuple[int, int] | None]:
    """What changes when a file is written anew or replaced."""
    found: list[tuple[int, int] | None] = []
    for path in paths:
        try:
            status = path.stat() if path is not None else None
        except OSError:
            status = None
        found.append((status.st_ino, status.st_mtime_ns) if status is not None else None)
    return found
