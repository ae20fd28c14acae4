"""What single values have to look like, each said in words that help to put it right."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError

# Of sun_path, without its last zero.
MAX_SOCKET_PATH = 107

# Levels are those of agent.compress; a test holds the two together.
_COMPRESSION = re.compile(r"none|lz4|zstd(:(-[1-7]|1?[0-9]|2[0-2]))?")
# A port, and before it a name, an IPv4 address, or an IPv6 address in brackets.
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")
_NATS_SCHEMES = ("nats", "tls", "ws", "wss")


def refuse(key: str, reason: str) -> PydanticCustomError:
    """An error about ``key`` of a table, for checks that look at several keys of it."""
    return PydanticCustomError("table", "{reason}", {"key": key, "reason": reason})


def _wrong(reason: str) -> PydanticCustomError:
    return PydanticCustomError("value", "{reason}", {"reason": reason})


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise _wrong("must be an absolute path: a daemon has no directory of its own")
    return path


def _socket(path: Path) -> Path:
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise _wrong(f"must be at most {MAX_SOCKET_PATH} bytes long, as every unix socket's path")
    return path


def _without_dots(name: object) -> object:
    return name.replace(".", "_") if isinstance(name, str) else name


def _token(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise _wrong("must be 1 to 128 letters, digits, '-', '_' or '.'")
    return name


def _address(address: str) -> str:
    if address and (not (found := _ADDRESS.fullmatch(address)) or int(found[2]) > 65535):
        raise _wrong('must be HOST:PORT, or "" for none')
    return address


def _compression(text: str) -> str:
    if not _COMPRESSION.fullmatch(text):
        raise _wrong("must be none, lz4, zstd or zstd:LEVEL with a level from -7 to 22")
    return text


def _servers(urls: str) -> str:
    """No message repeats the URL: there may be a password in it."""
    for url in filter(None, (each.strip() for each in urls.split(","))):
        try:
            parts = urlsplit(url)
            usable = parts.scheme in _NATS_SCHEMES and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise _wrong("must be nats://HOST:PORT or tls://HOST:PORT, several with commas")
        if "@" in parts.netloc:
            raise _wrong("must not contain a user or password: use the keys that are for them")
    return urls


def _http(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme == "http" and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if url and (not usable or "@" in url or parts.query or parts.fragment):
        raise _wrong("must be http://HOST:PORT, with a path if need be")
    return url.rstrip("/")


def _database(url: str) -> str:
    """No message repeats the URL: there may be a password in it."""
    if url.startswith("sqlite:////"):
        return url
    try:
        parts = urlsplit(url)
        place = parts.hostname and parts.port != 0 and parts.path.strip("/")
        usable = parts.scheme == "postgresql" and place
        secret = parts.password is not None or "password" in parse_qs(parts.query)
    except ValueError:
        usable, secret = None, False
    if not usable:
        raise _wrong("must be sqlite:////ABSOLUTE/FILE or postgresql://USER@HOST:PORT/NAME")
    if secret:
        raise _wrong("must not contain a password: use the keys that are for it")
    return url


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
SocketPath = Annotated[AbsolutePath, AfterValidator(_socket)]
# HOST:PORT; "" is none.
Address = Annotated[str, AfterValidator(_address)]
Compression = Annotated[str, AfterValidator(_compression)]
ServerUrls = Annotated[str, AfterValidator(_servers)]
HttpUrl = Annotated[str, AfterValidator(_http)]
DatabaseUrl = Annotated[str, AfterValidator(_database)]
# One word of a NATS subject. Dots, which part words, become underscores, which DNS names lack: so
# no two nodes with names from DNS get the same word.
NodeToken = Annotated[str, BeforeValidator(_without_dots), AfterValidator(_token)]
