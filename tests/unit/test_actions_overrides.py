"""What a request may change: everything else is refused by name, before anything is touched."""

from __future__ import annotations

import json

import pytest

from agent.actions.overrides import MAX_CRIU_OPTS, compression_of, criu_options, streams_of
from agent.errors import InvalidArgument
from agent.host import criu
from agent.manifest import Options

FIELD = "checkpoint.overrides.criuOpts"


def options(text: str, defaults: Options | None = None) -> Options:
    return criu_options(text, defaults or Options(), FIELD)


def test_nothing_given_is_the_nodes_own() -> None:
    defaults = Options(tcp_established=True, manage_cgroups_mode="full")
    assert criu_options(None, defaults, FIELD) == defaults
    assert options("{}", defaults) == defaults


def test_is_merged_over_the_defaults() -> None:
    defaults = Options(tcp_established=True, link_remap=True, file_locks=True)
    given = '{"link_remap": false, "shell_job": true}'
    assert options(given, defaults) == Options(
        tcp_established=True, link_remap=False, file_locks=True, shell_job=True
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("SOFT", "soft"), ("FULL", "full"), ("STRICT", "strict"), ("IGNORE", "ignore"),
        ("DEFAULT", "soft"), ("strict", "strict"), (0, "ignore"), (3, "soft"), (4, "full"),
        (5, "strict"), (6, "soft"),
    ],
)  # fmt: skip
def test_cgroup_modes_have_crius_names_and_numbers(given: str | int, expected: str) -> None:
    assert options(json.dumps({"manage_cgroups_mode": given})).manage_cgroups_mode == expected


def test_all_that_is_allowed_at_once() -> None:
    given = {
        "tcp_established": True, "tcp_close": False, "tcp_skip_in_flight": True,
        "ext_unix_sk": True, "shell_job": True, "file_locks": True, "link_remap": True,
        "manage_cgroups_mode": "FULL", "leave_running": True, "ghost_limit": 1 << 20,
        "log_level": 2,
    }  # fmt: skip
    expected = {name: value for name, value in given.items() if name != "leave_running"}
    assert options(json.dumps(given)).model_dump() == {**expected, "manage_cgroups_mode": "full"}


@pytest.mark.parametrize(
    ("given", "established", "close", "skip"),
    [
        ({"tcp": "established"}, True, False, False),
        ({"tcp": "close"}, False, True, True),
        ({"tcp": "skip-in-flight"}, True, False, True),
        ({"tcp": "close", "tcp_close": True}, False, True, True),
        ({"tcp_close": True}, False, True, True),
        ({"tcp_close": False}, True, False, True),
        ({"tcp_established": False}, False, False, True),
        ({"tcp_established": True}, True, False, True),
        ({"tcp_skip_in_flight": False}, True, False, False),
        ({}, True, False, True),
    ],
)
def test_what_is_said_of_connections_takes_the_place_of_what_the_node_says(
    given: dict[str, object], established: bool, close: bool, skip: bool
) -> None:
    defaults = Options(tcp_established=True, tcp_skip_in_flight=True, link_remap=True)
    found = options(json.dumps(given), defaults)
    assert found == Options(
        tcp_established=established, tcp_close=close, tcp_skip_in_flight=skip, link_remap=True
    )


def test_of_a_restore_only_what_is_said_is_set() -> None:
    assert options("{}").model_fields_set == set()
    assert options('{"tcp_close": true}').model_fields_set == {"tcp_close", "tcp_established"}


def test_what_runc_has_no_flag_for_reaches_criu_all_the_same() -> None:
    given = options('{"tcp_skip_in_flight": true, "ghost_limit": 4096, "log_level": 1}')
    assert criu.unknown_to_runc(given) == [
        "--skip-in-flight", "--ghost-limit=4096", "--verbosity=1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ('{"ghost_limit": NaN}', "not JSON"),
        ("[" * 10_000, "not JSON"),
        ("[]", "not a JSON object"),
        ("null", "not a JSON object"),
        ('"{}"', "not a JSON object"),
        ('{"link_remap": true, "link_remap": false}', "link_remap is there twice"),
        ('{"\\ud800": true}', ".ud800 may not be set"),
        ('{"\\ud800": 1, "\\ud800": 1}', ".ud800 is there twice"),
        ('{"%s": 1}' % ("x" * 1000), "x{40}[.]{3} may not be set"),
        ('{"tcp_established": 1}', "tcp_established: 1 is neither"),
        ('{"tcp_established": "true"}', 'tcp_established: "true" is neither'),
        ('{"tcp_established": null}', "tcp_established: null is neither"),
        ('{"tcp": "open"}', 'tcp: "open" is none of established, close, skip-in-flight'),
        ('{"tcp": "ESTABLISHED"}', "is none of established"),
        ('{"tcp": null}', "tcp: null is none of"),
        ('{"tcp": ["close"]}', "is none of"),
        ('{"tcp": "close", "tcp_established": true}', "close contradicts tcp_established = true"),
        ('{"tcp": "close", "tcp_close": false}', "close contradicts tcp_close = false"),
        ('{"tcp": "established", "tcp_skip_in_flight": true}', "established contradicts"),
        ('{"tcp_established": true, "tcp_close": true}', "tcp_established contradicts tcp_close"),
        ('{"tcp_established": {"a": {"a": 1}}}', "tcp_established: {"),
        ('{"leave_running": false}', "leave_running: the containers always run on"),
        ('{"ghost_limit": 0}', "ghost_limit: 0 is no number"),
        ('{"ghost_limit": 1.5}', "ghost_limit: 1.5 is no number"),
        ('{"ghost_limit": true}', "ghost_limit: true is no number"),
        ('{"ghost_limit": 4294967296}', "ghost_limit: 4294967296 is no number"),
        ('{"log_level": 5}', "log_level: 5 is no number from 0 to 4"),
        ('{"manage_cgroups_mode": "CG_NONE"}', "manage_cgroups_mode: "),
        ('{"manage_cgroups_mode": 1}', "manage_cgroups_mode: 1 is none of"),
        ('{"manage_cgroups_mode": true}', "manage_cgroups_mode: true is none of"),
        ('{"manage_cgroups_mode": [3]}', "manage_cgroups_mode: .3. is none of"),
        ('{"images_dir_fd": 3}', "images_dir_fd may not be set"),
        ('{"exec_cmd": ["sh"]}', "exec_cmd may not be set"),
        ('{"action_script": "/x"}', "action_script may not be set"),
        ('{"config_file": "/etc/shadow"}', "config_file may not be set"),
        ('{"lazy_pages": true}', "lazy_pages may not be set"),
        ('{"tcpEstablished": true}', "tcpEstablished may not be set"),
        (json.dumps({"x" * MAX_CRIU_OPTS: 1}), "longer than"),
    ],
)  # fmt: skip
def test_everything_else_is_refused_by_name(text: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words) as caught:
        options(text)
    assert caught.value.argument == FIELD
    assert len(str(caught.value)) < 400


def test_a_long_value_is_not_repeated() -> None:
    with pytest.raises(InvalidArgument) as caught:
        options(json.dumps({"tcp_established": "x" * 10_000}))
    assert len(str(caught.value)) < 200


def test_compression_and_streams_name_their_field() -> None:
    assert str(compression_of(None, "lz4", "f")) == "lz4"
    assert str(compression_of("zstd:3", "lz4", "f")) == "zstd:3"
    with pytest.raises(InvalidArgument) as caught:
        compression_of("gzip", "lz4", "overrides.compression")
    assert caught.value.argument == "overrides.compression"
    assert streams_of(None, 4, "f") == 4
    assert streams_of(8, 4, "f") == 8
    for wrong in (-1, 0, 65, 1 << 31):
        with pytest.raises(InvalidArgument) as caught:
            streams_of(wrong, 4, "overrides.streams")
        assert caught.value.argument == "overrides.streams"
