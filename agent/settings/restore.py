"""How containers come back into pods that Kubernetes makes: the table [restore]."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from agent.settings.checks import AbsolutePath, SocketPath, refuse
from agent.settings.table import Table


class Restore(Table):
    """What `checkpoint-runc` asks the agent for."""

    # Mode 0600, as all that comes over it is done as root. `restore.sock` beside that of [rpc] when
    # not given, off when "".
    socket: SocketPath | Literal[""] | None = None
    # A kubelet gives a container 120 s to be created (runtimeRequestTimeout); a cold start has to
    # fit in there as well.
    limit_seconds: Annotated[float, Field(ge=0.1, le=3600)] = 100.0
    # A pod that has started cold is a pod that runs; who would rather have none says "fail".
    fallback: Literal["cold", "fail"] = "cold"
    # The Actions API, for names that the node's own store does not know.
    api_url: str = ""
    api_token_file: AbsolutePath | None = None
    # Instead of the authorities that the machine trusts.
    api_ca: AbsolutePath | None = None

    @model_validator(mode="after")
    def _api_is_safe(self) -> Restore:
        if not self.api_url:
            return self
        if self.api_token_file is None:
            raise refuse("api_token_file", "missing: the API answers nobody without a token")
        try:
            parts = urlsplit(self.api_url)
            host, usable = (
                parts.hostname or "",
                parts.scheme in ("http", "https") and parts.port != 0,
            )
        except ValueError:
            host, usable = "", False
        if not usable or not host or "@" in parts.netloc or parts.query or parts.fragment:
            raise refuse("api_url", "must be https://HOST:PORT, with a path if need be")
        if parts.scheme == "http" and not _is_loopback(host):
            raise refuse("api_url", "must be https: the token would travel in the clear")
        return self


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False  # a name, which may be anybody's
