"""The API server's side of HTTP over TLS: who is let in, what goes wrong, and watches."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from tests.servers.kubernetes_requests import Asked
from tests.servers.kubernetes_status import Object, Refusal, unauthorized

if TYPE_CHECKING:
    from tests.servers.kubernetes import KubernetesServer


@dataclass
class Fault:
    """What happens to the next ``times`` requests instead, or as well.

    Attributes:
        refusal: the answer; None closes the connection without one.
        done: the request is carried out before.
    """

    verb: str
    resource: str
    refusal: Refusal | None
    times: int = 1
    done: bool = False


class Http(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, cluster: KubernetesServer, tls: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", cluster.port), _Handler)
        self.cluster = cluster
        self.ending = threading.Event()
        self._tls = tls
        self._open: set[socket.socket] = set()

    def get_request(self) -> tuple[socket.socket, Any]:
        # Hands are shaken in the request's own thread: a client that does not must not stop others.
        plain, address = self.socket.accept()
        secured = self._tls.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        self._open.add(secured)
        return secured, address

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401 - as the class has it
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that went away, or did not trust us, are what tests are about."""

    def end(self) -> None:
        """Close all connections, also those that are kept open."""
        self.ending.set()
        self.shutdown()
        self.server_close()
        for each in list(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Http

    def setup(self) -> None:
        self.request.settimeout(20)
        self.request.do_handshake()
        super().setup()

    def log_message(self, format: str, *args: object) -> None:
        """Nowhere."""

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_DELETE = do_GET

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        url = urlsplit(self.path)
        try:
            asked = Asked(self.command, url.path, dict(parse_qsl(url.query)), body)
            cluster = self.server.cluster
            cluster.requests.append((asked.verb, asked.resource, url.path))
            self._let_in()
            fault = _fault(cluster, asked)
            if fault is not None and not fault.done:
                self._fail(fault)
                return
            if asked.verb == "watch":
                self._watch(asked)
                return
            code, answer = asked.carry_out(cluster)
            if fault is not None:
                self._fail(fault)
                return
            self._send(code, answer)
        except Refusal as refusal:
            self._send(refusal.code, refusal.body(), refusal.retry_after)

    def _let_in(self) -> None:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given not in self.server.cluster.tokens and not self.request.getpeercert():
            raise unauthorized()

    def _fail(self, fault: Fault) -> None:
        if fault.refusal is not None:
            raise fault.refusal
        self.close_connection = True
        self.request.shutdown(socket.SHUT_RDWR)

    def _send(self, code: int, answer: Object, retry_after: int | None = None) -> None:
        data = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if retry_after is not None:
            self.send_header("Retry-After", str(retry_after))
        self.end_headers()
        self.wfile.write(data)

    def _watch(self, asked: Asked) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        after = int(asked.query.get("resourceVersion") or 0)
        try:
            for change in self.server.cluster.store.changes(
                asked.resource, asked.namespace, after, 0.05
            ):
                if self.server.ending.is_set():
                    return
                if change is not None and asked.selects(change[1]):
                    self._chunk({"type": change[0], "object": change[1]})
        except Refusal as refusal:
            self._chunk({"type": "ERROR", "object": refusal.body()})
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, line: Object) -> None:
        data = json.dumps(line).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()


def _fault(cluster: KubernetesServer, asked: Asked) -> Fault | None:
    for fault in cluster.faults:
        if (fault.verb, fault.resource) == (asked.verb, asked.resource):
            fault.times -= 1
            if fault.times <= 0:
                cluster.faults.remove(fault)
            return fault
    return None
