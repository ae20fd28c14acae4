"""One connection pool to Kubernetes' API server; JSON goes in and comes out.

    async with Kubernetes.connect(settings.cluster, os.environ) as kubernetes:
        node = await kubernetes.get("read node a", path_of("api/v1/nodes", "a"))
        async for seen in kubernetes.watch("watch nodes", "/api/v1/nodes", version):
            ...

Each call is one attempt: whether to try again is for those to know who ask. ClusterUnreachable is
worth another try, ClusterRefused is not. A call's first argument is what people read of it when it
fails: "cannot read node a: ...".
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from agent import __version__
from agent.cluster.access import Access, access_of
from agent.cluster.answers import Object, Watched, change, failure, translated, whole
from agent.errors import ClusterRefused, InvalidArgument
from agent.settings import Cluster

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientTimeout
    from kubernetes_asyncio.client import ApiClient, Configuration

# Seconds for a request and its answer. An API server itself gives up after 60; by then whoever
# waits for us has gone.
REQUEST_SECONDS: Final = 10.0
# Seconds that an API server holds a watch; it is then to be begun again.
WATCH_SECONDS: Final = 300


def path_of(collection: str, *names: str) -> str:
    """``/collection/NAME/...``; names are quoted, so that none of them leads elsewhere.

    Raises:
        ClusterRefused: nothing can have such a name, so there is none.
    """
    for name in names:
        # No quoting helps: whoever reads the URL takes the segment away, however it is written.
        if name in ("", ".", ".."):
            raise ClusterRefused("look for it", 404, "NotFound", f"{name!r} is nothing's name")
    return "/".join(["", collection.strip("/"), *(quote(name, safe="") for name in names)])


class Kubernetes:
    """Begins with `connect`."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(
        cls, settings: Cluster, environ: Mapping[str, str]
    ) -> AsyncIterator[Kubernetes]:
        """For the length of the block; reaches for nothing yet.

        Raises:
            InvalidArgument: the settings name no cluster that could be asked.
        """
        # Half a second, which only those pay who have a cluster.
        from kubernetes_asyncio.client import ApiClient

        access = access_of(settings, environ)
        with _configured(access) as configuration:
            client = ApiClient(configuration)
        client.user_agent = f"checkpoint-agent/{__version__}"
        try:
            yield cls(client)
        finally:
            await client.close()

    async def get(
        self, operation: str, path: str, query: Mapping[str, str] | None = None
    ) -> Object:
        """An object, or a list of them.

        Raises:
            ClusterUnreachable, ClusterRefused
        """
        return await self._ask(operation, "GET", path, query=query)

    async def create(self, operation: str, path: str, body: Object) -> Object:
        """A new object in a collection, as the cluster has stored it.

        Raises:
            ClusterUnreachable: it may have been made all the same: look for it first.
            ClusterRefused
        """
        return await self._ask(operation, "POST", path, body=body)

    async def delete(self, operation: str, path: str, uid: str | None = None) -> None:
        """Delete an object, in the time that it asks for; one that is not there is no error.

        Args:
            uid: only the one with this UID.

        Raises:
            ClusterUnreachable
            ClusterRefused: also if there is one of that name with another UID.
        """
        body: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        try:
            await self._ask(operation, "DELETE", path, body=body)
        except ClusterRefused as error:
            if error.status != 404:
                raise

    async def watch(
        self, operation: str, path: str, version: str, query: Mapping[str, str] | None = None
    ) -> AsyncGenerator[Watched, None]:
        """What happens to a collection after ``version``; ends when the server ends it.

        Raises:
            ClusterUnreachable: also when nothing was heard for longer than the server promises.
            ClusterRefused: with status 410 the version is too old, and a list has to come first.
        """
        asked = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
            "resourceVersion": version,
            **(query or {}),
        }
        from aiohttp import ClientTimeout

        with translated(operation):
            patience = ClientTimeout(
                connect=REQUEST_SECONDS, sock_read=WATCH_SECONDS + REQUEST_SECONDS
            )
            async with await self._begin("GET", path, asked, None, patience) as response:
                if response.status != 200:
                    raise failure(operation, response, await whole(response))
                while line := await response.content.readline():
                    yield change(operation, json.loads(line))

    async def _ask(
        self,
        operation: str,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
    ) -> Object:
        with translated(operation):
            begun = self._begin(method, path, query, body, REQUEST_SECONDS)
            async with await begun as response:
                data = await whole(response)
                if not 200 <= response.status < 300:
                    raise failure(operation, response, data)
                answer = json.loads(data)
                if not isinstance(answer, dict):
                    raise ValueError("the answer is no object")
                return answer

    async def _begin(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Object | None,
        patience: float | ClientTimeout,
    ) -> ClientResponse:
        response: ClientResponse = await self._client.call_api(
            path,
            method,
            query_params=list((query or {}).items()),
            header_params={"Accept": "application/json"},
            body=body,
            auth_settings=["BearerToken"],
            # Ours to read: the client's own reading writes every body to the log.
            _preload_content=False,
            _request_timeout=patience,
        )
        return response


@contextlib.contextmanager
def _configured(access: Access) -> Iterator[Configuration]:
    """Settings of the client. What it wants to have in files is in some until it has read them."""
    from kubernetes_asyncio.client import Configuration

    configuration = Configuration(host=access.server)
    configuration.verify_ssl = True
    # Chain and name are verified in any case. From 3.13 on Python also asks for extensions that the
    # certificates of many a cluster, k3s's among them, do not have.
    configuration.disable_strict_ssl_verification = True
    if access.server_name is not None:
        configuration.tls_server_name = access.server_name

    def renew(changed: Configuration) -> None:
        token = access.bearer()
        if token is not None:
            changed.api_key["BearerToken"] = f"Bearer {token}"

    renew(configuration)
    configuration.refresh_api_key_hook = renew
    with tempfile.TemporaryDirectory(prefix="checkpoint-agent-") as folder:
        configuration.ssl_ca_cert = _file(access.ca, Path(folder, "ca"))
        configuration.cert_file = _file(access.certificate, Path(folder, "certificate"))
        configuration.key_file = _file(access.key, Path(folder, "key"))
        try:
            yield configuration
        except OSError as error:
            # ssl.SSLError is one; neither says which file it is about.
            reason = f"certificates or key cannot be used: {error.strerror or error}"
            raise InvalidArgument("[cluster]", reason) from error


def _file(given: Path | bytes | None, place: Path) -> str | None:
    if not isinstance(given, bytes):
        return str(given) if given is not None else None
    # The directory is nobody else's.
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(given)
    return str(place)
