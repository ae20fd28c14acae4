"""Where the API server is and who we are there: a kubeconfig file, or a pod's service account."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

from agent.errors import InvalidArgument
from agent.settings import Cluster

_KUBECONFIG: Final = "[cluster] kubeconfig"
_IN_CLUSTER: Final = "[cluster] in_cluster"

# A JWT, or whatever else fits into a header.
_TOKEN: Final = re.compile(r"[!-~]{1,65536}")


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach an API server. Files are read when they are needed, data is in memory.

    Attributes:
        server: ``https://HOST:PORT``, perhaps with a path.
        ca: of its certificate, in PEM; None for those that the machine trusts.
        certificate, key: who we are, in PEM; both or none.
    """

    server: str
    ca: Path | bytes | None = None
    server_name: str | None = None
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    certificate: Path | bytes | None = field(default=None, repr=False)
    key: Path | bytes | None = field(default=None, repr=False)

    def bearer(self) -> str | None:
        """The token as it is now: kubelet writes a new one before the old one ends.

        Raises:
            InvalidArgument: its file cannot be read, or holds none.
        """
        if self.token_file is None:
            return self.token
        token = _read(self.token_file, str(self.token_file)).strip()
        if not _TOKEN.fullmatch(token):
            raise InvalidArgument(str(self.token_file), "holds no token")
        return token


def access_of(settings: Cluster, environ: Mapping[str, str]) -> Access:
    """What the settings, one way or the other, come to.

    Raises:
        InvalidArgument: they name nothing usable. No message has a secret in it.
    """
    if settings.kubeconfig is not None:
        return _from_kubeconfig(settings.kubeconfig)
    return _from_service_account(settings.service_account_dir, environ)


def _from_service_account(folder: Path, environ: Mapping[str, str]) -> Access:
    host = environ.get("KUBERNETES_SERVICE_HOST", "")
    port = environ.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port:
        reason = "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not in the environment"
        raise InvalidArgument(_IN_CLUSTER, reason)
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    access = Access(_https(server, _IN_CLUSTER), ca=folder / "ca.crt", token_file=folder / "token")
    # Now, and not with the first request: whoever has made a mistake is still looking.
    _read(folder / "ca.crt", _IN_CLUSTER)
    access.bearer()
    return access


def _from_kubeconfig(file: Path) -> Access:
    config = _parsed(file)
    context = _named(config, "contexts", "context", _text(config, "current-context"))
    cluster = _named(config, "clusters", "cluster", _text(context, "cluster"))
    user = _named(config, "users", "user", _text(context, "user"))
    if cluster.get("insecure-skip-tls-verify"):
        _refuse("insecure-skip-tls-verify: the server's certificate is always verified")
    if "proxy-url" in cluster:
        _refuse("proxy-url is not supported; set HTTPS_PROXY in the environment")
    for way in ("exec", "auth-provider", "username"):
        if way in user:
            _refuse(f"{way} is not supported: take a token, a tokenFile or a client certificate")
    access = Access(
        _https(_text(cluster, "server"), _KUBECONFIG),
        ca=_file_or_data(cluster, "certificate-authority", file),
        server_name=_text(cluster, "tls-server-name") or None,
        token=_text(user, "token") or None,
        token_file=_beside(file, _text(user, "tokenFile")),
        certificate=_file_or_data(user, "client-certificate", file),
        key=_file_or_data(user, "client-key", file),
    )
    if (access.certificate is None) != (access.key is None):
        _refuse("a client-certificate and its client-key go together")
    if access.token is not None and not _TOKEN.fullmatch(access.token):
        _refuse("token is none")
    access.bearer()
    return access


def _parsed(file: Path) -> dict[str, Any]:
    # Comes with kubernetes_asyncio, and is as slow to load.
    import yaml  # type: ignore[import-untyped]

    try:
        parsed = yaml.safe_load(_read(file, _KUBECONFIG))
    except (yaml.YAMLError, RecursionError):
        # PyYAML's message quotes the line, which may be the one with the token.
        _refuse("is no YAML")
    if not isinstance(parsed, dict):
        _refuse("is no kubeconfig")
    return parsed


def _named(config: dict[str, Any], table: str, kind: str, name: str) -> dict[str, Any]:
    """One of a kubeconfig's lists of ``{name: ..., KIND: {...}}``."""
    rows = config.get(table)
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and row.get("name") == name and isinstance(row.get(kind), dict):
            return dict(row[kind])
    _refuse(f"there is no {kind} {name!r} under {table}")


def _text(table: dict[str, Any], key: str) -> str:
    value = table.get(key)
    if value is not None and not isinstance(value, str):
        _refuse(f"{key} must be a text")
    return value or ""


def _file_or_data(table: dict[str, Any], key: str, file: Path) -> Path | bytes | None:
    data = _text(table, f"{key}-data")
    if not data:
        return _beside(file, _text(table, key))
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        _refuse(f"{key}-data is no base64")


def _beside(file: Path, name: str) -> Path | None:
    """A path as kubectl reads it: relative ones begin at the kubeconfig's directory."""
    return file.parent / name if name else None


def _https(server: str, argument: str) -> str:
    try:
        parts = urlsplit(server)
        usable = parts.scheme == "https" and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or "@" in server:
        raise InvalidArgument(argument, "the server must be https://HOST:PORT, without a password")
    return server.rstrip("/")


def _read(file: Path, argument: str) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidArgument(argument, f"{file}: {error.strerror or 'unreadable'}") from error
    except UnicodeDecodeError as error:
        raise InvalidArgument(argument, f"{file}: is no text") from error


def _refuse(reason: str) -> NoReturn:
    raise InvalidArgument(_KUBECONFIG, reason)
