"""moto's S3 server in a thread of the test, with faults put in front of it.

It takes any credentials, knows conditional puts and shows unfinished uploads: what Swift does not.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.servers.s3 import S3Server, ask

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], object]


@dataclass(slots=True)
class Fault:
    """The next ``times`` requests of this method, with this query parameter, fail with a status.

    ``done`` says whether the server does first what it is asked, and then loses the answer;
    ``path`` is a part of the path that they have; ``gate`` is passed before the answer. With
    ``before`` they do not fail: it is called with each, which is answered when it returns.
    """

    method: str
    parameter: str
    status: str
    times: int = 1_000
    done: bool = False
    path: str = ""
    gate: Callable[[], None] = lambda: None
    before: Callable[[Environ], None] | None = None


@dataclass(frozen=True, slots=True)
class MotoServer(S3Server):
    """An S3 server whose answers a test can spoil."""

    faults: list[Fault] = field(default_factory=list)

    def unfinished_uploads(self, bucket: str) -> list[str]:
        """The keys of the multipart uploads that were begun and neither completed nor aborted."""
        return re.findall("<Key>([^<]*)</Key>", ask("GET", f"{self.endpoint}/{bucket}?uploads"))


@contextlib.contextmanager
def moto_server() -> Iterator[MotoServer]:
    """Serve on a free port of loopback until the context ends."""
    faults: list[Fault] = []
    application = _Faulty(DomainDispatcherApplication(create_backend_app), faults)
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, name="moto", daemon=True)
    thread.start()
    try:
        yield MotoServer(f"http://127.0.0.1:{server.port}", "anyone", "anything", faults)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Faulty:
    """A WSGI application in front of another."""

    def __init__(self, behind: Callable[..., Iterable[bytes]], faults: list[Fault]) -> None:
        self._behind = behind
        self._faults = faults
        self._lock = threading.Lock()
        self._condition = threading.Lock()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        fault = self._take(environ)
        if fault is None:
            return self._answer(environ, start_response)
        if fault.before is not None:
            fault.before(environ)
            return self._answer(environ, start_response)
        if fault.done:
            list(self._answer(environ, lambda *_: None))
        else:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        fault.gate()
        start_response(fault.status, [("Content-Length", "0")])
        return [b""]

    def _answer(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if "HTTP_IF_NONE_MATCH" not in environ:
            return self._behind(environ, start_response)
        # S3 looks and puts at one moment. moto looks, and puts later: of 400 times eight writers,
        # with threads that switched every 20 us, 7 had two winners.
        with self._condition:
            return self._behind(environ, start_response)

    def _take(self, environ: Environ) -> Fault | None:
        query = parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
        with self._lock:
            for fault in self._faults:
                named = not fault.parameter or fault.parameter in query
                named = named and fault.path in environ["PATH_INFO"]
                if fault.times and named and fault.method == environ["REQUEST_METHOD"]:
                    fault.times -= 1
                    return fault
        return None


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:
        """Not into the tests' output."""
