"""What every request passes first: nothing without a token, nothing too often, nothing too big."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.api_rows import row
from tests.api_servers import Api, api_in
from tests.api_stages import Stage, put
from tests.http import ask
from tests.servers.nats import NatsServer

# Without a token: health, and the way in.
PUBLIC = {
    ("GET", "/healthz"): 200,
    ("GET", "/readyz"): 200,
    ("GET", "/"): 401,
    ("GET", "/page/style.css"): 200,
    ("GET", "/page/sign-in.js"): 200,
    ("GET", "/page/favicon.svg"): 200,
}


def operations(api: Api) -> Iterator[tuple[str, str]]:
    """All methods and paths that the server itself tells of, and those that it does not."""
    paths: dict[str, Any] = api.get("/openapi.json").json()["paths"]
    for path, methods in paths.items():
        for method in methods:
            if (method, path) != ("post", "/session"):
                yield method.upper(), re.sub(r"\{[^}]*\}", "x", path)
    for path in ("/metrics", "/docs", "/docs/swagger-ui.css", "/openapi.json", "/page/app.js"):
        yield "GET", path
    for path in ("/nothing", "/page/index.html", "/page/sign-in.html", "/page/", "//healthz"):
        yield "GET", path
    for method in ("HEAD", "POST", "OPTIONS"):
        yield method, "/healthz"
    yield "GET", "/healthz/"
    yield "GET", "/page/../v2/nodes"


def test_nothing_is_done_without_a_token(stage: Stage) -> None:
    api = stage.api
    found = list(operations(api))
    assert ("POST", "/v2/checkpoint/pod") in found
    assert ("GET", "/v2/actions/x/events") in found
    for method, path in found:
        answer = ask(method, api.url + path, json=None if method in ("GET", "HEAD") else {})
        # The second is for those who try too often.
        assert answer.status in (401, 429), (method, path)
        if method != "HEAD":
            assert answer.json()["code"] == str(answer.status)
        if answer.status == 401:
            assert answer.headers["WWW-Authenticate"] == "Bearer"
    # Meanwhile, whoever has one is served.
    for path in ("/metrics", "/docs", "/openapi.json", "/docs/swagger-ui.css", "/page/app.js"):
        assert api.get(path).status == 200, path
    for (method, path), status in PUBLIC.items():
        assert ask(method, api.url + path).status == status, path


def test_guessing_is_limited_and_disturbs_nobody_else(broker: NatsServer, tmp_path: Path) -> None:
    with api_in(tmp_path, broker.url) as api:
        guesses = [api.get("/v2/actions", f"guess-{number}") for number in range(50)]
        statuses = [answer.status for answer in guesses]
        assert statuses[:20] == [401] * 20
        assert set(statuses[20:]) <= {401, 429}
        slow = guesses[statuses.index(429)]
        assert slow.headers["Retry-After"] in ("1", "2")
        assert slow.json()["code"] == "429"
        # By the other door it is the same address.
        doors = [ask("POST", f"{api.url}/session", json={"token": "x"}) for _ in range(5)]
        assert 429 in [answer.status for answer in doors]
        # Others may come from there too: from behind a proxy, all do.
        assert api.get("/v2/actions").status == 200
        assert ask("POST", f"{api.url}/session", json={"token": api.token}).status == 204
        assert ask("GET", f"{api.url}/healthz").status == 200


def test_each_token_has_its_own_rate(broker: NatsServer, tmp_path: Path) -> None:
    limit: dict[str, dict[str, object]] = {"api": {"requests_per_second": 1.0}}
    with api_in(tmp_path, broker.url, limit) as api:
        other = api.make_token("other")
        answers = [api.get("/session") for _ in range(10)]
        statuses = [answer.status for answer in answers]
        # Twice as many at once, and what two cores take their time for.
        assert statuses[:2] == [200] * 2
        assert 429 in statuses
        slow = answers[statuses.index(429)]
        assert slow.headers["Retry-After"] in ("1", "2")
        assert slow.json()["details"]["code"] == "too_fast"
        assert api.get("/session", other).status == 200
        # Health is nobody's.
        assert {ask("GET", f"{api.url}/healthz").status for _ in range(10)} == {200}


def post(api: Api, path: str, token: str, head: dict[str, str], *pieces: bytes) -> tuple[int, str]:
    """What is answered to a request that is sent as it is, as far as it is taken."""
    connection = http.client.HTTPConnection(api.address, timeout=20)
    try:
        connection.putrequest("POST", path)
        for name, value in (head | {"Content-Type": "application/json"}).items():
            connection.putheader(name, value)
        if token:
            connection.putheader("Authorization", f"Bearer {token}")
        connection.endheaders()
        for piece in pieces:
            connection.send(piece)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_a_body_that_is_too_big_is_not_read(broker: NatsServer, tmp_path: Path) -> None:
    limit: dict[str, dict[str, object]] = {"api": {"request_bytes": 2048}}
    chunked = {"Transfer-Encoding": "chunked"}
    with api_in(tmp_path, broker.url, limit) as api:
        action = row()
        put(api, action)
        asked = {"action_id": action.action_id, "status": "ready"}
        for path in ("/v2/checkpoint/pod", "/v2/restore/pod", "/v2/actions/upload"):
            # Answered before a byte of it was sent.
            status, text = post(api, path, api.token, {"Content-Length": str(10**12)})
            assert status == 413
            assert '"code":"413"' in text
            assert "2048" in text
            # Who does not say how much it will be is stopped where it is too much.
            status, text = post(api, path, api.token, chunked, b"800\r\n", b"x" * 2048, b"\r\n",
                                b"1\r\nx\r\n")  # fmt: skip
            assert status == 413, text
            assert '"code":"413"' in text
        fitting = api.post("/v2/actions/upload", {**asked, "pod_spec": "x" * 1900})
        assert fitting.status == 200
        assert api.post("/v2/actions/upload", {**asked, "pod_spec": "x" * 2048}).status == 413
        # Whoever has no token is not even told that.
        status, _ = post(api, "/v2/actions/upload", "", {"Content-Length": str(10**12)})
        assert status == 401
        status, _ = post(api, "/session", "", {"Content-Length": str(10**12)})
        assert status == 413
        assert api.get("/v2/actions").status == 200
