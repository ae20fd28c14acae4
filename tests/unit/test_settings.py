"""The configuration: what a file and the environment make of it, and how mistakes are named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.compress import parse_compression
from agent.errors import InvalidArgument
from agent.manifest import Options
from agent.settings import CriuOpts, Settings, load

# Not the machine's own /etc/checkpoint-agent/config.toml.
EMPTY = Path("/dev/null")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_nothing_has_to_be_configured() -> None:
    settings = load(EMPTY, {})
    assert settings.nats.servers == ()
    assert settings.rpc.address == ""
    assert settings.storage.allowed == ("/var/lib/checkpoint-agent/checkpoints",)
    assert settings.node.name == os.uname().nodename.replace(".", "_")


def test_a_file_is_read_and_the_environment_goes_over_it(file: Path) -> None:
    file.write_text(
        'stop_seconds = 5\n[node]\nname = "n1"\ncluster = "blue"\n'
        '[nats]\nurl = "nats://a:4222, tls://b:4222"\n'
        "[checkpoint]\nstreams = 2\ncriu_opts = { link_remap = true }\n"
    )
    settings = load(
        file,
        {
            "CHECKPOINT_AGENT_NODE__NAME": "n2",
            "CHECKPOINT_AGENT_CHECKPOINT__STREAMS": "8",
            "CHECKPOINT_AGENT_CHECKPOINT__CRIU_OPTS__FILE_LOCKS": "true",
            "CHECKPOINT_AGENT_PODS__RUNC_ROOTS": '["/run/a", "/run/b"]',
            "CHECKPOINT_AGENT_STORE": "s3://bucket/x",
            "CHECKPOINT_AGENT_STATE_DIR": "/state",
            "CHECKPOINT_AGENT_NATS__PASSWORD": "12345",
            "CHECKPOINT_AGENT_NATS__USER": "agent",
        },
    )
    assert settings.stop_seconds == 5
    assert (settings.node.cluster, settings.node.name) == ("blue", "n2")
    assert settings.nats.servers == ("nats://a:4222", "tls://b:4222")
    assert settings.nats.password is not None
    assert settings.nats.password.get_secret_value() == "12345"
    assert settings.checkpoint.streams == 8
    assert settings.checkpoint.criu_opts == CriuOpts(link_remap=True, file_locks=True)
    assert settings.pods.runc_roots == (Path("/run/a"), Path("/run/b"))
    assert settings.storage.store == "s3://bucket/x"
    assert settings.state_dir == Path("/state")


def test_the_environment_names_the_file(file: Path) -> None:
    file.write_text("stop_seconds = 7.5")
    assert load(None, {"CHECKPOINT_AGENT_CONFIG": str(file)}).stop_seconds == 7.5


def test_an_option_goes_before_the_environment(file: Path, tmp_path: Path) -> None:
    file.write_text("stop_seconds = 7.5")
    other = tmp_path / "other.toml"
    assert load(file, {"CHECKPOINT_AGENT_CONFIG": str(other)}).stop_seconds == 7.5


# What a file says, which key is at fault, and what is said about it.
WRONG_IN_A_FILE = {
    "unknown key": ("[rpc]\nsokcet = '/x'", "[rpc] sokcet", "unknown key"),
    "unknown table": ("[rcp]\nsocket = '/x'", "rcp", "unknown key"),
    "unknown key outside": ("stop_secs = 1", "stop_secs", "unknown key"),
    "an unknown policy": (
        '[checkpoint.criu_opts]\ntcp = "open"',
        "[checkpoint.criu_opts] tcp",
        "'established', 'close' or 'skip-in-flight'",
    ),
    "two policies": (
        '[checkpoint.criu_opts]\ntcp = "close"\ntcp_established = true',
        "[checkpoint.criu_opts] tcp",
        "close contradicts tcp_established = true",
    ),
    "two policies of CRIU's": (
        "[checkpoint.criu_opts]\ntcp_close = true\ntcp_established = true",
        "[checkpoint.criu_opts] tcp",
        "tcp_established contradicts tcp_close",
    ),
    "unknown deep key": ("[checkpoint.criu_opts]\nx = 1", "[checkpoint.criu_opts] x", "unknown"),
    "text for a number": ('[checkpoint]\nstreams = "4"', "[checkpoint] streams", "integer"),
    "number for text": ("[nats]\nuser = 4", "[nats] user", "string"),
    "number for yes or no": (
        "[checkpoint.criu_opts]\nfile_locks = 1",
        "[checkpoint.criu_opts] file_locks",
        "boolean",
    ),
    "date for a number": ("stop_seconds = 2026-01-01", "stop_seconds", "number"),
    "a value for a table": ("rpc = 1", "rpc", "object"),
    "text for a list": ('[pods]\nrunc_roots = "/run"', "[pods] runc_roots", "array"),
    "too many": ("[checkpoint]\nstreams = 65", "[checkpoint] streams", "less than or equal to 64"),
    "too few": ("[checkpoint]\nconcurrency = 0", "[checkpoint] concurrency", "greater than"),
    "not finite": ("stop_seconds = inf", "stop_seconds", "3600"),
    "no limit": (
        "[checkpoint]\nfrozen_limit_seconds = 0",
        "[checkpoint] frozen_limit_seconds",
        "greater than",
    ),
    "not a number": ("[rpc]\nfreeze_limit_seconds = nan", "[rpc] freeze_limit_seconds", "0"),
    "no roots": ("[pods]\nrunc_roots = []", "[pods] runc_roots", "at least 1"),
    "relative path": ('[pods]\nrunc_roots = ["run"]', "[pods] runc_roots", "absolute"),
    "long socket": (f'[rpc]\nsocket = "/{"x" * 107}"', "[rpc] socket", "107 bytes"),
    "node with spaces": ('[node]\nname = "a b"', "[node] name", "letters"),
    "node with a wildcard": ('[node]\nname = "*"', "[node] name", "letters"),
    "empty cluster": ('[node]\ncluster = ""', "[node] cluster", "1 to 128"),
    "address without a port": ('[metrics]\naddress = "host"', "[metrics] address", "HOST:PORT"),
    "port too high": ('[metrics]\naddress = "h:65536"', "[metrics] address", "HOST:PORT"),
    "TCP without TLS": ('[rpc]\naddress = "0.0.0.0:1"', "[rpc] tls_cert", "mutual TLS"),
    "TCP without a client CA": (
        '[rpc]\naddress = "0.0.0.0:1"\ntls_cert = "/c"\ntls_key = "/k"',
        "[rpc] tls_client_ca",
        "mutual TLS",
    ),
    "codec": ('[checkpoint]\ncompression = "zip"', "[checkpoint] compression", "zstd:LEVEL"),
    "broker": ('[nats]\nurl = "http://x"', "[nats] url", "nats://HOST:PORT"),
    "broker port": ('[nats]\nurl = "nats://x:y"', "[nats] url", "nats://HOST:PORT"),
    "password in the URL": ('[nats]\nurl = "nats://u:hunter2@h"', "[nats] url", "password"),
    "password in the file": ('[nats]\npassword = "hunter2"', "[nats] password", "password_file"),
    "token in the file": ('[nats]\ntoken = "hunter2"', "[nats] token", "token_file"),
    "two ways in": (
        '[nats]\nuser = "u"\nnkey_file = "/k"',
        "[nats] nkey_file",
        "user is given too",
    ),
    "certificate without key": ('[nats]\ntls_cert = "/c"', "[nats] tls_key", "go together"),
    "level": ('[log]\nlevel = "loud"', "[log] level", "'debug'"),
}


@pytest.mark.parametrize(("text", "key", "reason"), WRONG_IN_A_FILE.values(), ids=WRONG_IN_A_FILE)
def test_a_mistake_is_named_by_file_table_and_key(
    file: Path, text: str, key: str, reason: str
) -> None:
    file.write_text(text)
    with pytest.raises(InvalidArgument) as refused:
        load(file, {})
    assert refused.value.argument == f"{file}: {key}"
    assert reason in refused.value.reason
    assert "hunter2" not in str(refused.value)


WRONG_IN_THE_ENVIRONMENT = {
    "unknown key": ("RPC__SOKCET", "/x", "no setting rpc.sokcet"),
    "unknown table": ("RCP__SOCKET", "/x", "no setting rcp.socket"),
    "too deep": ("RPC__SOCKET__PATH", "/x", "no setting rpc.socket.path"),
    "no number": ("CHECKPOINT__STREAMS", "four", "integer"),
    "too many": ("CHECKPOINT__STREAMS", "65", "64"),
    "outside of tables": ("STOP_SECONDS", "-1", "greater than or equal to 0"),
    "plain name": ("STATE_DIR", "relative", "absolute"),
    "no list": ("PODS__RUNC_ROOTS", "/run/runc", "array"),
}


@pytest.mark.parametrize(
    ("name", "value", "reason"), WRONG_IN_THE_ENVIRONMENT.values(), ids=WRONG_IN_THE_ENVIRONMENT
)
def test_a_mistake_in_the_environment_is_named_by_its_variable(
    name: str, value: str, reason: str
) -> None:
    variable = f"CHECKPOINT_AGENT_{name}"
    with pytest.raises(InvalidArgument) as refused:
        load(EMPTY, {variable: value})
    assert refused.value.argument == variable
    assert reason in refused.value.reason


def test_what_kubernetes_sets_for_a_service_of_our_name_is_not_for_us() -> None:
    settings = load(
        EMPTY,
        {
            "CHECKPOINT_AGENT_PORT": "tcp://10.0.0.1:80",
            "CHECKPOINT_AGENT_SERVICE_HOST": "10.0.0.1",
            "CHECKPOINT_AGENT_NODE": "x",
        },
    )
    assert settings == load(EMPTY, {})


@pytest.mark.parametrize("text", ["= 1", "[a", "\udcff"], ids=["key", "table", "bytes"])
def test_what_is_not_toml_is_said_to_be_so(file: Path, text: str) -> None:
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InvalidArgument, match="not TOML") as refused:
        load(file, {})
    assert refused.value.argument == str(file)


def test_a_file_that_was_asked_for_must_be_there(file: Path) -> None:
    with pytest.raises(InvalidArgument, match="no such file"):
        load(file, {})
    with pytest.raises(InvalidArgument, match="no such file"):
        load(None, {"CHECKPOINT_AGENT_CONFIG": str(file)})


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="directory"):
        load(tmp_path, {})


def test_no_secret_is_in_what_is_shown() -> None:
    settings = load(EMPTY, {"CHECKPOINT_AGENT_NATS__TOKEN": "hunter2"})
    assert "hunter2" not in settings.model_dump_json()
    assert "hunter2" not in repr(settings)


def test_dots_of_a_node_s_name_do_not_part_subjects() -> None:
    name = load(EMPTY, {"CHECKPOINT_AGENT_NODE__NAME": "ip-10-0-0-1.ec2.internal"}).node.name
    assert name == "ip-10-0-0-1_ec2_internal"


def test_defaults_for_criu_are_those_of_the_manifest() -> None:
    assert Options(**CriuOpts().model_dump(exclude={"tcp"})) == Options()
    assert set(CriuOpts.model_fields) == {"tcp", *Options.model_fields}


def test_what_is_said_of_connections() -> None:
    closing = {"tcp_established": False, "tcp_close": True, "tcp_skip_in_flight": True}
    assert CriuOpts(tcp="close").connections == closing
    assert CriuOpts(file_locks=True).connections == {}
    # Said, though it is the default: pods are to be refused then, as CRIU does.
    assert CriuOpts(tcp_established=False).connections == {"tcp_established": False}


@pytest.mark.parametrize(
    "text",
    ["none", "lz4", "lz4:1", "zstd", "zstd:", "zstd:x", "ZSTD"]
    + [f"zstd:{level}" for level in range(-9, 25)],
)
def test_the_codecs_that_can_be_configured_are_those_there_are(text: str) -> None:
    try:
        parse_compression(text)
    except InvalidArgument:
        with pytest.raises(InvalidArgument, match="zstd:LEVEL"):
            load(EMPTY, {"CHECKPOINT_AGENT_CHECKPOINT__COMPRESSION": text})
    else:
        load(EMPTY, {"CHECKPOINT_AGENT_CHECKPOINT__COMPRESSION": text})


def test_settings_do_not_change() -> None:
    settings = Settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.rpc.address = "x"
