"""Connections to the API that never bring a whole request, and more of them than it can have."""

from __future__ import annotations

import json
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.api_nodes import pod
from tests.api_servers import Api, api_in
from tests.api_stages import Stage
from tests.servers.nats import NatsServer
from tests.waiting import eventually

# Seconds that it waits, and that two slow cores may need more.
PATIENCE, SLOWNESS = 30.0, 10.0

UPLOAD = b"POST /v2/actions/upload HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@contextmanager
def connected(api: Api, *sent: bytes) -> Iterator[socket.socket]:
    """A connection on which that was sent."""
    host, _, port = api.address.rpartition(":")
    with closing(socket.create_connection((host, int(port)), timeout=PATIENCE)) as connection:
        for piece in sent:
            connection.sendall(piece)
        yield connection


def is_closed(connection: socket.socket) -> bool:
    """Whether it was ended from there."""
    connection.setblocking(False)
    try:
        while connection.recv(65536):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True


def authorized(api: Api, length: int) -> bytes:
    """The head of an upload with so long a body."""
    head = f"Authorization: Bearer {api.token}\r\nContent-Length: {length}\r\n\r\n"
    return UPLOAD + head.encode()


@pytest.mark.slow
def test_who_sends_no_whole_request_does_not_stay(sqlite_stage: Stage) -> None:
    api, web = sqlite_stage.api, pod("web")
    health = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    began = time.monotonic()
    with ExitStack() as stack:
        node = stack.enter_context(sqlite_stage.node(web, open_gate=False))
        action_id = sqlite_stage.checkpoint(web)
        api.wait_state(action_id, "checkpoint_created")
        silent, half, again, drop, answered, body = (
            stack.enter_context(connected(api, *sent))
            for sent in (
                (),
                (b"GET /healthz HTTP/1.1\r\nHo",),
                (health,),
                (b"GET / HTTP/1.1\r\nX: ",),
                (UPLOAD, b"Content-Length: 100000\r\n\r\n", b"{"),
                (authorized(api, 2_000_000), b"{"),
            )
        )
        watching = f"GET /v2/actions/{action_id}/events HTTP/1.1\r\nHost: x\r\n"
        watching += f"Authorization: Bearer {api.token}\r\n\r\n"
        stream = stack.enter_context(connected(api, watching.encode()))
        asked = json.dumps({"action_id": action_id, "status": "ready", "pod_spec": {}}).encode()
        slow = stack.enter_context(connected(api, authorized(api, len(asked))))
        idle = stack.enter_context(connected(api, health))
        assert again.recv(65536).startswith(b"HTTP/1.1 200 ")
        again.sendall(b"GET /healthz")
        # A byte now and then buys no more time.
        for second in range(20):
            slow.sendall(asked[second : second + 1])
            drop.sendall(b"x")
            answered.sendall(b"x")
            time.sleep(1)
        slow.sendall(asked[20:])
        assert slow.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert answered.recv(65536).startswith(b"HTTP/1.1 401 ")
        assert not is_closed(half)
        for connection in (silent, half, again, drop, answered):
            eventually(partial(is_closed, connection), "the connection being closed")
        assert body.recv(65536).startswith(b"HTTP/1.1 408 ")
        eventually(lambda: is_closed(body), "the connection being closed")
        assert PATIENCE < time.monotonic() - began < PATIENCE + SLOWNESS
        # These have brought all of it.
        assert not is_closed(stream)
        assert not is_closed(idle)
        assert not is_closed(slow)
        node.let_go()


def test_too_many_leave_room_for_what_else_it_has_to_open(
    broker: NatsServer, tmp_path: Path
) -> None:
    with api_in(tmp_path, broker.url) as api, ExitStack() as stack:
        api.wait_ready()
        assert api.process is not None
        before = len(api.lines("events are not taken over; trying again"))
        resource.prlimit(api.process.pid, resource.RLIMIT_NOFILE, (120, 120))
        crowd = [stack.enter_context(connected(api)) for _ in range(60)]
        eventually(lambda: sum(map(is_closed, crowd)) >= 40, "those that are too many")
        # Of those that asked whether it is ready, the last ones may not have gone yet.
        assert sum(map(is_closed, crowd)) <= 45
        assert len(api.lines("too many connections; new ones are closed")) == 1
        stack.close()
        eventually(lambda: _answers(api), "room for others")
        # It lacked nothing of its own meanwhile.
        assert len(api.lines("events are not taken over; trying again")) == before


def _answers(api: Api) -> bool:
    try:
        return api.get("/v2/actions").status == 200
    except OSError:
        return False
