"""Requests over HTTP with nothing but the standard library."""

from __future__ import annotations

import json as json_module
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any

SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered."""

    status: int
    headers: Message
    text: str

    def json(self) -> Any:  # noqa: ANN401 - whatever it is
        """The body."""
        return json_module.loads(self.text)


def ask(
    method: str,
    url: str,
    *,
    json: object = None,
    body: bytes | None = None,
    token: str = "",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request; an error status is an answer as well."""
    sent = dict(headers or {})
    if json is not None:
        body = json_module.dumps(json).encode()
        sent.setdefault("Content-Type", "application/json")
    if token:
        sent["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(url, data=body, headers=sent, method=method)
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return Answer(answer.status, answer.headers, answer.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read().decode())
