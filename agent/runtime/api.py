"""Asks the Actions API for the newest checkpoint of a name. Blocks."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from typing import Final
from urllib.parse import urlencode

from agent.errors import RestoreFailed
from agent.settings.restore import Restore

# Seconds. It looks into an index; a kubelet waits meanwhile.
_PATIENCE: Final = 10.0

# Bytes of a path, as for requests' (docs/api.md).
_LONGEST: Final = 4096

# What it answers when no checkpoint has that name, or none could.
_NONE: Final = (400, 404)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The token is for one server."""

    def redirect_request(self, *_: object) -> None:
        """Follow none."""
        return


def path_of_name(name: str, settings: Restore) -> str | None:
    """The path of the newest checkpoint of that name, None when there is none.

    Raises:
        RestoreFailed: it could not be asked.
    """
    url = f"{settings.api_url.rstrip('/')}/v2/checkpoint/path?{urlencode({'name': name})}"
    try:
        headers = {"Authorization": f"Bearer {_token(settings)}"}
        handlers: list[urllib.request.BaseHandler] = [_NoRedirects()]
        if url.startswith("https:"):
            context = ssl.create_default_context(cafile=settings.api_ca)
            handlers.append(urllib.request.HTTPSHandler(context=context))
        else:
            # This machine's own: a proxy of the environment's would be shown the token.
            handlers.append(urllib.request.ProxyHandler({}))
        opener = urllib.request.build_opener(*handlers)
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 - http or https, checked
        with opener.open(request, timeout=_PATIENCE) as answer:
            data: bytes = answer.read(_LONGEST + 1)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in _NONE:
            return None
        raise RestoreFailed(name, f"the Actions API answers {error.code}") from None
    except (OSError, ValueError) as error:
        raise RestoreFailed(name, f"the Actions API cannot be asked: {error}") from None
    if len(data) > _LONGEST:
        raise RestoreFailed(name, "the Actions API answers no path")
    return data.decode(errors="replace").strip() or None


def _token(settings: Restore) -> str:
    if settings.api_token_file is None:
        return ""
    return settings.api_token_file.read_text().strip()
