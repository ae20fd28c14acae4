"""Who gets in: tokens, what each of them may, and that none of them is kept or told."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from agent.api.database import tokens
from tests.api_servers import Api, in_database
from tests.api_stages import Stage
from tests.http import ask


@pytest.fixture(scope="module")
def api(sqlite_stage: Stage) -> Api:
    sqlite_stage.api.wait_ready()
    return sqlite_stage.api


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic {token}",
        "{token}",
        "Bearer {token}x",
        "Bearer x{token}",
        "Bearer {id}",
        "Bearer {id}_",
        "Bearer {id}_{other}",
        "Bearer cpa_000000000000_{secret}",
        "Bearer {TOKEN}",
        "Bearer \xff",
        "Bearer {token} {token}",
        "Bearer %00",
        "Bearer ' OR 1=1 --",
    ],
)
def test_wrong_tokens(api: Api, header: str) -> None:
    identity, secret = api.token[:16], api.token[17:]
    value = header.format(
        token=api.token, id=identity, secret=secret, other="x" * 43, TOKEN=api.token.upper()
    )
    answer = ask("GET", f"{api.url}/v2/actions", headers={"Authorization": value})
    assert answer.status == 401


def test_the_scheme_is_written_as_one_likes(api: Api) -> None:
    for scheme in ("Bearer", "bearer", "BEARER"):
        value = {"Authorization": f"{scheme} {api.token}"}
        assert ask("GET", f"{api.url}/v2/actions", headers=value).status == 200


def test_a_revoked_token_is_worthless_from_then_on(stage: Stage) -> None:
    api = stage.api
    token = api.make_token("leaving")
    assert api.get("/v2/actions", token).status == 200

    async def revoke(session: AsyncSession) -> bool:
        return await tokens.revoke(session, token[4:16])

    assert in_database(api, revoke)
    answer = api.get("/v2/actions", token)
    assert answer.status == 401
    assert answer.json()["message"] == "the token is not valid"
    assert api.get("/v2/actions").status == 200


def test_each_scope_lets_do_its_own(api: Api) -> None:
    asked = {"pod_id": "nobody"}
    restore = {"action_id": "nothing", "reason": "manual"}
    upload = {"action_id": "nothing", "status": "ready"}
    # Past the scope, these ones fail for other reasons.
    calls: dict[str, tuple[str, Any, dict[str, int]]] = {
        "list": ("/v2/actions", None, {"read": 200}),
        "one": ("/v2/actions/x", None, {"read": 404}),
        "events": ("/v2/actions/x/events", None, {"read": 404}),
        "status": ("/v2/checkpoint/status/x", None, {"read": 404}),
        "nodes": ("/v2/nodes", None, {"read": 200}),
        "metrics": ("/metrics", None, {"read": 200}),
        "docs": ("/docs", None, {"read": 200}),
        "document": ("/openapi.json", None, {"read": 200}),
        "checkpoint": ("/v2/checkpoint/pod", asked, {"checkpoint": 404}),
        "restore": ("/v2/restore/pod", restore, {"restore": 400}),
        "upload": ("/v2/actions/upload", upload, {"checkpoint": 404}),
        "session": ("/session", None, dict.fromkeys(("read", "checkpoint", "restore"), 200)),
    }
    for scope in ("read", "checkpoint", "restore"):
        token = api.make_token(f"only-{scope}", scope)
        for name, (path, body, statuses) in calls.items():
            answer = api.get(path, token) if body is None else api.post(path, body, token)
            assert answer.status == statuses.get(scope, 403), (scope, name)
            if answer.status == 403:
                assert f"only-{scope}" in answer.json()["message"]
        session = api.get("/session", token).json()
        assert session == {"name": f"only-{scope}", "scopes": [scope]}


def test_no_secret_is_kept_or_told(stage: Stage) -> None:
    api = stage.api
    secret = api.token[17:]
    assert len(secret) == 43
    api.get("/v2/actions", f"cpa_{'0' * 12}_{secret}")
    ask("POST", f"{api.url}/session", json={"token": api.token})
    ask("GET", f"{api.url}/v2/actions?token={secret}")
    assert secret not in api.log.read_text()
    for file in api.directory.glob("api.db*"):
        assert secret.encode() not in file.read_bytes(), file

    async def everything(session: AsyncSession) -> str:
        connection = await session.connection()
        return str((await connection.exec_driver_sql("SELECT * FROM tokens")).all())

    kept = in_database(api, everything)
    assert api.token[4:16] in kept
    assert secret not in kept
    password = api.env.get("CHECKPOINT_AGENT_API__DATABASE_PASSWORD")
    assert password is None or password not in api.log.read_text()
