"""What all S3 servers of the tests have in common."""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

import obstore
import pytest
from obstore.store import S3Store


@dataclass(frozen=True, slots=True)
class S3Server:
    """Where a test's S3 server listens, and whom it lets in."""

    endpoint: str
    key: str
    secret: str

    def url(self, bucket: str, prefix: str = "") -> str:
        """A store's URL there."""
        return f"s3://{bucket}{prefix}?endpoint={self.endpoint}"

    def log_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put its credentials, and nothing else of S3's, into the environment."""
        forget_s3(monkeypatch)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", self.key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", self.secret)

    def create_bucket(self, bucket: str) -> None:
        """A PUT on the bucket itself, which obstore has no call for but can sign."""
        client = S3Store(
            bucket,
            config={
                "aws_endpoint_url_s3": self.endpoint,
                "access_key_id": self.key,
                "secret_access_key": self.secret,
            },
            client_options={"allow_http": True},
        )
        ask("PUT", obstore.sign(client, "PUT", "", timedelta(minutes=1)))


def ask(method: str, url: str) -> str:
    """The text of a server's answer, which must be a good one."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=20)
    try:
        connection.request(method, f"{parts.path}?{parts.query}")
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    if answer.status >= 300:
        raise RuntimeError(f"{method} {parts.path}: {answer.status} {text}")
    return text


def forget_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove whatever the machine's environment and home directory say about S3."""
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE", "CA_BUNDLE"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    for name in ("REGION", "DEFAULT_REGION", "ENDPOINT_URL", "ENDPOINT_URL_S3", "DEFAULT_PROFILE"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent/config")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent/credentials")
