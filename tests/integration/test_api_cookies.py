"""A browser's way in: the sign-in page, the cookie, and what other people's pages cannot do."""

from __future__ import annotations

import re

import pytest

from tests.api_nodes import pod
from tests.api_servers import Api
from tests.api_stages import Stage
from tests.http import Answer, ask

COOKIE = "checkpoint_agent_token"


@pytest.fixture(scope="module")
def api(sqlite_stage: Stage) -> Api:
    sqlite_stage.api.wait_ready()
    return sqlite_stage.api


def test_only_the_way_in_is_public(api: Api) -> None:
    page = ask("GET", f"{api.url}/")
    assert page.headers.get_content_type() == "text/html"
    named = set(re.findall(r'(?:src|href)="([^"#]+)"', page.text))
    assert named
    for path in named:
        assert ask("GET", f"{api.url}/{path.lstrip('/')}").status == 200, path
    ready = ask("GET", f"{api.url}/readyz")
    assert ready.json() == {"status": "ready", "problems": []}


def test_a_browser_keeps_the_token_where_no_script_can_read_it(api: Api) -> None:
    answer = ask("POST", f"{api.url}/session", json={"token": api.token})
    assert (answer.status, answer.text) == (204, "")
    cookie, *attributes = answer.headers["Set-Cookie"].split("; ")
    assert cookie == f"{COOKIE}={api.token}"
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(attributes)
    # Plain HTTP would keep a browser from sending it back.
    assert "Secure" not in attributes
    browser = {"Cookie": cookie}
    page = ask("GET", f"{api.url}/", headers=browser)
    assert page.status == 200
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe-inline" not in policy
    assert ask("GET", f"{api.url}/v2/actions", headers=browser).status == 200
    gone = ask("DELETE", f"{api.url}/session", headers=browser | same_origin())
    assert gone.status == 204
    assert "Max-Age=0" in gone.headers["Set-Cookie"]


def same_origin() -> dict[str, str]:
    return {"Sec-Fetch-Site": "same-origin"}


def test_a_wrong_token_is_no_session(api: Api) -> None:
    for body in ({"token": "x"}, {"token": f"{api.token}x"}, {"token": ""}):
        answer = ask("POST", f"{api.url}/session", json=body)
        assert answer.status == 401
        assert answer.headers["Set-Cookie"] is None
    assert ask("POST", f"{api.url}/session", json={"token": 7}).status == 400
    assert ask("GET", f"{api.url}/", headers={"Cookie": f"{COOKIE}=x"}).status == 401


# Headers of a browser, and whether what it sends may change anything.
ORIGINS: dict[str, tuple[dict[str, str], bool]] = {
    "old browser": ({}, False),
    "our page": ({"Sec-Fetch-Site": "same-origin"}, True),
    "our page by origin": ({"Origin": "http://{host}"}, True),
    "a neighbour's": ({"Sec-Fetch-Site": "same-site"}, False),
    "a stranger's": ({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, False),
    "typed in": ({"Sec-Fetch-Site": "none"}, False),
    "no origin": ({"Origin": "null"}, False),
    "another port": ({"Origin": "http://127.0.0.1:1"}, False),
}


@pytest.mark.parametrize(("headers", "ours"), ORIGINS.values(), ids=ORIGINS)
def test_other_peoples_pages_cannot_use_the_cookie(
    sqlite_stage: Stage, headers: dict[str, str], ours: bool
) -> None:
    api, web = sqlite_stage.api, pod("web")
    browser = {"Cookie": f"{COOKIE}={api.token}"}
    browser |= {name: value.format(host=api.address) for name, value in headers.items()}

    def send(path: str, body: object) -> Answer:
        return ask("POST", api.url + path, json=body, headers=browser)

    with sqlite_stage.node(web) as node:
        answer = send("/v2/checkpoint/pod", {"pod_id": web.ref.uid})
        assert answer.status == (200 if ours else 403), answer.text
        if ours:
            api.wait_state(answer.text, "ready")
        assert len(node.engine.runs) == int(ours)
    assert ask("DELETE", f"{api.url}/session", headers=browser).status == (204 if ours else 403)
    # Reading is harmless: nobody else's page gets to see it.
    assert ask("GET", f"{api.url}/v2/actions", headers=browser).status == 200


def test_a_header_counts_more_than_a_cookie(api: Api) -> None:
    cookie = {"Cookie": f"{COOKIE}={api.token}"}
    assert ask("GET", f"{api.url}/v2/nodes", token="wrong", headers=cookie).status in (401, 429)
    wrong = {"Cookie": f"{COOKIE}=wrong"}
    assert ask("GET", f"{api.url}/v2/nodes", token=api.token, headers=wrong).status == 200
