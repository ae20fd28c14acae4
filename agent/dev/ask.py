"""Asking the API over HTTP, as anybody would."""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from typing import Any

# Seconds. It looks at its database and its broker before it answers.
_SECONDS = 10.0


def get(address: str, path: str, token: str = "") -> Any:  # noqa: ANN401 - any JSON
    """What it answers with 200; None when with something else, or not at all. Blocks.

    Not through a proxy: it is on loopback.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with closing(http.client.HTTPConnection(address, timeout=_SECONDS)) as connection:
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return json.loads(answer.read()) if answer.status == 200 else None
        except (OSError, http.client.HTTPException, ValueError):
            return None
