"""S3's settings: from the store's URL, the environment and the shared files of the AWS tools.

obstore reads the environment itself, but not ``~/.aws/{credentials,config}``: that is done here.
"""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from agent.errors import InvalidArgument

_KEYS = ("aws_access_key_id", "aws_secret_access_key")
_WAYS_NOT_TAKEN = ("credential_process", "role_arn", "sso_session", "sso_start_url")


@dataclass(frozen=True, slots=True)
class S3Settings:
    """What a client needs to know besides the bucket. Without keys it looks for them by itself:
    web identity, container and instance metadata."""

    endpoint: str | None
    region: str
    path_style: bool
    access_key_id: str | None
    secret_access_key: str | None
    session_token: str | None

    def __repr__(self) -> str:
        return f"S3Settings({self.endpoint}, {self.region})"  # no keys in a log


def settings(parameters: Mapping[str, str], environ: Mapping[str, str]) -> S3Settings:
    """The URL's parameters before the environment, and that before the profile.

    Raises InvalidArgument for a value that cannot be used and a profile that is not there.
    """
    profile = _profile(environ)
    endpoint = (
        parameters.get("endpoint")
        or environ.get("AWS_ENDPOINT_URL_S3")
        or environ.get("AWS_ENDPOINT_URL")
        or profile.get("endpoint_url")
    )
    region = (
        parameters.get("region")
        or environ.get("AWS_REGION")
        or environ.get("AWS_DEFAULT_REGION")
        or profile.get("region")
    )
    in_environment = "AWS_ACCESS_KEY_ID" in environ
    keys = environ if in_environment else {name.upper(): text for name, text in profile.items()}
    if not in_environment:
        _refuse_ways_not_taken(profile)
    return S3Settings(
        endpoint=_endpoint(endpoint) if endpoint else None,
        region=region or "us-east-1",
        path_style=_path_style(parameters.get("path_style"), bool(endpoint)),
        access_key_id=keys.get("AWS_ACCESS_KEY_ID"),
        secret_access_key=keys.get("AWS_SECRET_ACCESS_KEY"),
        session_token=keys.get("AWS_SESSION_TOKEN"),
    )


def _endpoint(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise InvalidArgument("endpoint", "must be http://HOST[:PORT] or https://HOST[:PORT]")
    return text.rstrip("/")


def _path_style(text: str | None, own_endpoint: bool) -> bool:
    """AWS wants the bucket in the host's name; for a server of one's own that is rarely set up."""
    if text is None:
        return own_endpoint
    if text not in ("true", "false"):
        raise InvalidArgument("path_style", f"{text!r} is neither true nor false")
    return text == "true"


def _profile(environ: Mapping[str, str]) -> dict[str, str]:
    """What both shared files say of the chosen profile; credentials have precedence over config."""
    chosen = environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE")
    name = chosen or "default"
    home = Path(environ.get("HOME") or Path.home())
    config = environ.get("AWS_CONFIG_FILE") or home / ".aws/config"
    credentials = environ.get("AWS_SHARED_CREDENTIALS_FILE") or home / ".aws/credentials"
    in_config = _section(Path(config), name if name == "default" else f"profile {name}")
    in_credentials = _section(Path(credentials), name)
    if chosen and in_config is None and in_credentials is None:
        raise InvalidArgument("AWS_PROFILE", f"no profile {name!r} in {config} or {credentials}")
    return {**(in_config or {}), **(in_credentials or {})}


def _section(path: Path, name: str) -> dict[str, str] | None:
    # No interpolation: a secret may hold a '%'. No default section: [default] is a profile's name.
    parser = configparser.RawConfigParser(default_section="", strict=False)
    try:
        parser.read_string(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        # Not the error's text: it quotes the line, which may be a secret.
        raise InvalidArgument(str(path), f"cannot be read: {type(error).__name__}") from None
    return dict(parser[name]) if parser.has_section(name) else None


def _refuse_ways_not_taken(profile: Mapping[str, str]) -> None:
    if any(key in profile for key in _KEYS):
        return
    for way in _WAYS_NOT_TAKEN:
        if way in profile:
            raise InvalidArgument(
                "AWS_PROFILE", f"{way} is not supported; export AWS_ACCESS_KEY_ID and the rest"
            )
