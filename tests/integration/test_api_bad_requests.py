"""What nobody should send: each is refused with 400 and words that help, and leaves nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.api_nodes import Node, pod
from tests.api_servers import Api
from tests.api_stages import Stage
from tests.http import Answer, ask

UID = "pod-of-bad-requests"
CHECKPOINT, RESTORE, UPLOAD = "/v2/checkpoint/pod", "/v2/restore/pod", "/v2/actions/upload"


@dataclass(frozen=True)
class Tried:
    """An API whose node has pod UID, and one name twice."""

    api: Api
    node: Node

    def refused(self, answer: Answer, *words: str) -> dict[str, Any]:
        """An ApiError of 400 with these words; nothing was stored, nothing was begun."""
        assert answer.status == 400, (answer.status, answer.text)
        error: dict[str, Any] = answer.json()
        assert error.keys() == {"message", "code", "details"}
        assert error["code"] == "400"
        for word in words:
            assert word in error["message"], error
        assert self.api.get("/v2/actions").json() == []
        assert self.node.engine.runs == []
        return error

    def send(self, body: bytes, path: str = CHECKPOINT, kind: str = "application/json") -> Answer:
        """Bytes as they are."""
        headers = {"Content-Type": kind}
        return ask("POST", self.api.url + path, body=body, token=self.api.token, headers=headers)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def tried(request: pytest.FixtureRequest) -> Iterator[Tried]:
    """On each database."""
    stage: Stage = request.getfixturevalue(f"{request.param}_stage")
    stage.api.wait_ready()
    pods = pod("web", uid=UID), pod("twice", "one"), pod("twice", "two")
    with stage.node(*pods) as node:
        yield Tried(stage.api, node)


# Overrides of a checkpoint, and what has to be said about them.
BAD_OVERRIDES: dict[str, tuple[object, tuple[str, ...]]] = {
    "codec": ({"compression": "zip"}, ("overrides.compression", "zstd:LEVEL")),
    "level": ({"compression": "zstd:99"}, ("overrides.compression",)),
    "codec with a NUL": ({"compression": "lz4\0"}, ("overrides.compression",)),
    "too many streams": ({"streams": 65}, ("overrides.streams", "65 is not from 1 to 64")),
    "too few streams": ({"streams": -1}, ("overrides.streams", "-1 is not from 1 to 64")),
    "text for streams": ({"streams": "4"}, ("overrides.streams", "integer")),
    "fraction for streams": ({"streams": 4.5}, ("overrides.streams", "integer")),
    "yes for streams": ({"streams": True}, ("overrides.streams", "integer")),
    "null for streams": ({"streams": None}, ("overrides.streams", "integer")),
    "huge streams": ({"streams": 2**200}, ("overrides.streams",)),
    "no JSON": ({"criu_opts": "tcp_established"}, ("overrides.criu_opts", "not JSON")),
    "no object": ({"criu_opts": "[1]"}, ("overrides.criu_opts", "not a JSON object")),
    "an object itself": ({"criu_opts": {"tcp_close": True}}, ("overrides.criu_opts", "string")),
    "forbidden option": (
        {"criu_opts": '{"images_dir": "/etc"}'},
        ("overrides.criu_opts", "images_dir may not be set"),
    ),
    "option's value": ({"criu_opts": '{"tcp_close": 1}'}, ("overrides.criu_opts", "tcp_close")),
    "half a character": ({"criu_opts": '{"\\ud800": true}'}, ("overrides.criu_opts", "may not")),
    "option twice": (
        {"criu_opts": '{"tcp_close": true, "tcp_close": false}'},
        ("overrides.criu_opts", "tcp_close is there twice"),
    ),
    "deep options": ({"criu_opts": "[" * 60_000}, ("overrides.criu_opts",)),
    "long options": ({"criu_opts": '"' + "x" * 65_536 + '"'}, ("65536 bytes",)),
    "newline in a directory": ({"directory": "/a\nb"}, ("overrides.directory", "printed")),
    "NUL in a directory": ({"directory": "/a\0b"}, ("overrides.directory", "printed")),
    "long directory": ({"directory": "/" + "x" * 4096}, ("overrides.directory", "4096")),
    "number for a directory": ({"directory": 7}, ("overrides.directory", "string")),
    "text for yes": ({"asynchronous": "yes"}, ("overrides.asynchronous", "boolean")),
    "number for yes": ({"asynchronous": 1}, ("overrides.asynchronous", "boolean")),
    "a list": ([], ("overrides",)),
}


@pytest.mark.parametrize(("overrides", "words"), BAD_OVERRIDES.values(), ids=BAD_OVERRIDES)
def test_overrides_of_a_checkpoint(tried: Tried, overrides: object, words: tuple[str, ...]) -> None:
    answer = tried.api.post(CHECKPOINT, {"pod_id": UID, "overrides": overrides})
    error = tried.refused(answer, *words)
    assert str(error["details"]["argument"]).startswith("overrides")


BAD_CHECKPOINTS: dict[str, tuple[object, tuple[str, ...]]] = {
    "neither": ({}, ("pod_id", "give pod_id, or pod_name")),
    "both empty": ({"pod_id": "", "pod_name": ""}, ("pod_id",)),
    "only a namespace": ({"namespace": "default"}, ("pod_id",)),
    "ambiguous": ({"pod_name": "twice"}, ("could be any of", "one/twice", "two/twice")),
    "kind": ({"pod_id": UID, "kind": "foo"}, ("kind", "'simple'")),
    "kind null": ({"pod_id": UID, "kind": None}, ("kind",)),
    "reason": ({"pod_id": UID, "reason": "nodeTermination"}, ("reason", "'heartbeat'")),
    "number for an id": ({"pod_id": 7}, ("pod_id", "string")),
    "list for an id": ({"pod_id": [UID]}, ("pod_id", "string")),
    "long id": ({"pod_id": "x" * 129}, ("pod_id", "128")),
    "long name": ({"pod_name": "x" * 254}, ("pod_name", "253")),
    "long namespace": ({"pod_id": UID, "namespace": "x" * 254}, ("namespace", "253")),
    "long cluster": ({"pod_id": UID, "cluster_id": "x" * 129}, ("cluster_id", "128")),
    "NUL in an id": ({"pod_id": f"{UID}\0"}, ("pod_id", "printed")),
    "NUL in a name": ({"pod_name": "web\0"}, ("pod_name", "printed")),
    "NUL in a cluster": ({"pod_id": UID, "cluster_id": "\0"}, ("cluster_id", "printed")),
    "no object": ([{"pod_id": UID}], ()),
    "a text": (UID, ()),
    "a number": (7, ()),
}


@pytest.mark.parametrize(("body", "words"), BAD_CHECKPOINTS.values(), ids=BAD_CHECKPOINTS)
def test_bodies_of_a_checkpoint(tried: Tried, body: object, words: tuple[str, ...]) -> None:
    tried.refused(tried.api.post(CHECKPOINT, body), *words)


BAD_BYTES = {
    "nothing": b"",
    "null": b"null",
    "broken": b'{"pod_id": "',
    "two": b"{}{}",
    "not UTF-8": b'{"pod_id": "\xff\xfe"}',
    "half a character": b'{"pod_id": "\\ud800"}',
    "half a character elsewhere": b'{"pod_id": "%s", "namespace": "\\udfff"}' % UID.encode(),
    "NaN": b'{"pod_id": "%s", "overrides": {"streams": NaN}}' % UID.encode(),
    "infinite": b'{"pod_id": "%s", "overrides": {"streams": 1e400}}' % UID.encode(),
    "thousands of digits": b'{"pod_id": "%s", "overrides": {"streams": %s}}'
    % (UID.encode(), b"9" * 10_000),
    "deep": b'{"pod_id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep where nobody looks": b'{"x": ' * 100_000 + b"1" + b"}" * 100_000,
}


@pytest.mark.parametrize("path", [CHECKPOINT, RESTORE, UPLOAD])
@pytest.mark.parametrize("body", BAD_BYTES.values(), ids=BAD_BYTES)
def test_bytes_that_are_no_body(tried: Tried, path: str, body: bytes) -> None:
    tried.refused(tried.send(body, path))


@pytest.mark.parametrize("path", [CHECKPOINT, RESTORE, UPLOAD])
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded"])
def test_a_body_that_does_not_say_that_it_is_json(tried: Tried, path: str, kind: str) -> None:
    # A form of somebody else's page can send these without asking the browser's leave.
    tried.refused(tried.send(json.dumps({"pod_id": UID}).encode(), path, kind))


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"], ids=["empty", "long", "tab"])
def test_keys_that_are_none(tried: Tried, key: str) -> None:
    tried.refused(tried.api.post(CHECKPOINT, {"pod_id": UID}, key=key), "Idempotency-Key")


BAD_RESTORES: dict[str, tuple[object, tuple[str, ...]]] = {
    "no action": ({"reason": "manual"}, ("action_id", "required")),
    "no reason": ({"action_id": UID}, ("reason", "required")),
    "reason": ({"action_id": UID, "reason": "heartbeat"}, ("reason", "'nodeTermination'")),
    "null": ({"action_id": None, "reason": "manual"}, ("action_id", "string")),
    "number": ({"action_id": 7, "reason": "manual"}, ("action_id", "string")),
    "no UUID": ({"action_id": "x", "reason": "manual"}, ("action_id", "no such action")),
    "NUL": ({"action_id": "\0", "reason": "manual"}, ("action_id", "no such action")),
    "unknown": (
        {"action_id": "00000000-0000-0000-0000-000000000000", "reason": "manual"},
        ("action_id", "no such action"),
    ),
    "overrides": (
        {"action_id": UID, "reason": "manual", "overrides": {"pod_name": 7}},
        ("overrides.pod_name", "string"),
    ),
}


@pytest.mark.parametrize(("body", "words"), BAD_RESTORES.values(), ids=BAD_RESTORES)
def test_bodies_of_a_restore(tried: Tried, body: object, words: tuple[str, ...]) -> None:
    tried.refused(tried.api.post(RESTORE, body), *words)


def test_nothing_was_begun(tried: Tried) -> None:
    """With all of the above done, what is right still works."""
    answer = tried.api.post(CHECKPOINT, {"pod_id": UID})
    assert answer.status == 200
    tried.api.wait_state(answer.text, "ready")
    assert tried.node.engine.runs == [answer.text]
