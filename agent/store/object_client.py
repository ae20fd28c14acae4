"""obstore's clients for the URLs of object stores: what they are told, and how long they try."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from agent.errors import InvalidArgument
from agent.store import s3
from agent.store.paths import directory_components

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config

Client = S3Store | GCSStore | AzureStore

# A dead endpoint is told within 20 s: connecting may take 5 s, and no attempt starts later than
# 12 s plus one pause after the first. Within these, a busy server's 503 is waited out.
_CONNECT = timedelta(seconds=5)
_RETRY = timedelta(seconds=12)
_PAUSE = timedelta(seconds=3)

# What a bucket may be called anywhere; obstore panics on what cannot be part of a URL.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")


def open_client(
    url: SplitResult, parameters: Mapping[str, str], *, request_seconds: int, retries: int
) -> Client:
    """A client for a store's URL; each single request may take ``request_seconds``.

    Raises InvalidArgument for what the URL, the environment or the profile says.
    """
    if not _BUCKET.fullmatch(url.netloc):
        raise InvalidArgument("store", f"{url.scheme}:// must be followed by a bucket's name")
    prefix = "/".join(directory_components(url.path.strip("/"))) or None
    retry: RetryConfig = {
        "max_retries": retries,
        "retry_timeout": _RETRY,
        "backoff": {"max_backoff": _PAUSE},
    }
    options: ClientConfig = {
        "connect_timeout": _CONNECT,
        "timeout": timedelta(seconds=request_seconds),
    }
    if url.scheme == "s3":
        return _s3(url.netloc, prefix, parameters, options, retry)
    kind = GCSStore if url.scheme == "gs" else AzureStore
    try:
        return kind(url.netloc, prefix=prefix, client_options=options, retry_config=retry)
    except (BaseError, ValueError) as error:
        # The first line alone: what is missing or malformed in the environment.
        raise InvalidArgument("store", str(error).partition("\n")[0]) from None


def _s3(
    bucket: str,
    prefix: str | None,
    parameters: Mapping[str, str],
    options: ClientConfig,
    retry: RetryConfig,
) -> S3Store:
    found = s3.settings(parameters, os.environ)
    config: S3Config = {
        "region": found.region,
        # A dot in the bucket's name would not match the wildcard of AWS's certificate.
        "virtual_hosted_style_request": not found.path_style and "." not in bucket,
        "disable_bulk_delete": True,  # objects go one by one, and not every server knows the bulk
    }
    if found.endpoint:
        options["allow_http"] = found.endpoint.startswith("http://")
        # Not `endpoint`: over that, obstore would prefer AWS_ENDPOINT_URL_S3.
        config["aws_endpoint_url_s3"] = _address(found.endpoint, bucket, found.path_style)
    if found.access_key_id and found.secret_access_key:
        config["access_key_id"] = found.access_key_id
        config["secret_access_key"] = found.secret_access_key
    if found.session_token:
        config["session_token"] = found.session_token
    _trust(options)
    try:
        return S3Store(
            bucket, prefix=prefix, config=config, client_options=options, retry_config=retry
        )
    except (BaseError, ValueError) as error:
        raise InvalidArgument("store", str(error).partition("\n")[0]) from None


def _address(endpoint: str, bucket: str, path_style: bool) -> str:
    """obstore wants the bucket in an endpoint of its own when requests name it by host."""
    return endpoint if path_style else endpoint.replace("://", f"://{bucket}.", 1)


def _trust(options: ClientConfig) -> None:
    """A private authority's certificate where the AWS tools look for it."""
    bundle = os.environ.get("AWS_CA_BUNDLE")
    if bundle:
        try:
            options["root_certificate"] = Path(bundle).read_bytes()
        except OSError as error:
            raise InvalidArgument("AWS_CA_BUNDLE", f"{bundle}: {error.strerror}") from None
