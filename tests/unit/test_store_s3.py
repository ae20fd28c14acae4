"""Where S3's settings come from, and which source wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import InvalidArgument
from agent.store.s3 import settings

CREDENTIALS = """\
[default]
aws_access_key_id = default-key
aws_secret_access_key = s3cr3t/50%
[other]
aws_access_key_id = other-key
aws_secret_access_key = other-secret
aws_session_token = other-token
region = ignored-by-nobody
"""
CONFIG = """\
[default]
region = eu-west-1
[profile other]
region = eu-north-1
endpoint_url = https://storage.example
[profile configured]
aws_access_key_id = configured-key
aws_secret_access_key = configured-secret
[profile robot]
credential_process = /bin/true
"""


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment whose home directory has both files."""
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text(CREDENTIALS)
    (tmp_path / ".aws/config").write_text(CONFIG)
    return {"HOME": str(tmp_path)}


def test_nothing_set(tmp_path: Path) -> None:
    found = settings({}, {"HOME": str(tmp_path)})
    assert (found.endpoint, found.region, found.path_style) == (None, "us-east-1", False)
    assert found.access_key_id is found.secret_access_key is found.session_token is None


def test_default_profile(home: dict[str, str]) -> None:
    found = settings({}, home)
    assert (found.access_key_id, found.secret_access_key) == ("default-key", "s3cr3t/50%")
    assert (found.session_token, found.region) == (None, "eu-west-1")


def test_named_profile(home: dict[str, str]) -> None:
    found = settings({}, {**home, "AWS_PROFILE": "other"})
    assert (found.access_key_id, found.session_token) == ("other-key", "other-token")
    assert found.endpoint == "https://storage.example"
    assert found.path_style
    found = settings({}, {**home, "AWS_PROFILE": "configured"})
    assert found.secret_access_key == "configured-secret"


def test_files_may_be_elsewhere(home: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("[default]\naws_access_key_id = there\n")
    found = settings({}, {**home, "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "elsewhere")})
    assert found.access_key_id == "there"


def test_environment_before_profile(home: dict[str, str]) -> None:
    environ = {
        **home,
        "AWS_PROFILE": "other",
        "AWS_ACCESS_KEY_ID": "env-key",
        "AWS_SECRET_ACCESS_KEY": "env-secret",
        "AWS_REGION": "env-region",
        "AWS_ENDPOINT_URL": "http://env:80",
    }
    found = settings({}, environ)
    assert (found.access_key_id, found.secret_access_key) == ("env-key", "env-secret")
    assert found.session_token is None  # never one source's key with another's token
    assert (found.region, found.endpoint) == ("env-region", "http://env:80")
    found = settings({}, {**environ, "AWS_ENDPOINT_URL_S3": "http://s3:80/"})
    assert found.endpoint == "http://s3:80"


def test_url_before_environment(home: dict[str, str]) -> None:
    found = settings(
        {"endpoint": "http://url:80", "region": "url-region", "path_style": "false"},
        {**home, "AWS_REGION": "env-region", "AWS_ENDPOINT_URL_S3": "http://env:80"},
    )
    assert (found.endpoint, found.region, found.path_style) == (
        "http://url:80",
        "url-region",
        False,
    )


def test_no_such_profile(home: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument, match="no profile 'missing'"):
        settings({}, {**home, "AWS_PROFILE": "missing"})


def test_a_profile_that_needs_a_program(home: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument, match="credential_process is not supported"):
        settings({}, {**home, "AWS_PROFILE": "robot"})


def test_a_broken_file_is_named_and_not_quoted(home: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / ".aws/credentials").write_text("aws_secret_access_key = s3cr3t\n")
    with pytest.raises(InvalidArgument) as caught:
        settings({}, home)
    assert "s3cr3t" not in str(caught.value)
    assert str(tmp_path / ".aws/credentials") in str(caught.value)


def test_secrets_are_not_shown(home: dict[str, str]) -> None:
    assert "s3cr3t" not in repr(settings({}, home))
