"""The launcher's few lines of protobuf against the real library."""

from __future__ import annotations

import pytest
from pycriu import rpc_pb2

from agent.host.launcher import wire
from agent.host.launcher.wire import fields, number, text


def test_numbers_are_those_of_criu() -> None:
    """Written out in the launcher, because importing them would take longer than the dump."""
    assert (wire.DUMP, wire.RESTORE, wire.NOTIFY) == (rpc_pb2.DUMP, rpc_pb2.RESTORE, rpc_pb2.NOTIFY)
    request = rpc_pb2.criu_req.DESCRIPTOR.fields_by_name
    assert request["type"].number == wire.REQ_TYPE
    assert request["opts"].number == wire.REQ_OPTS
    assert request["notify_success"].number == wire.REQ_NOTIFY_SUCCESS
    response = rpc_pb2.criu_resp.DESCRIPTOR.fields_by_name
    assert response["type"].number == wire.RESP_TYPE
    assert response["success"].number == wire.RESP_SUCCESS
    assert response["notify"].number == wire.RESP_NOTIFY


@pytest.mark.parametrize("value", [0, 1, 127, 128, 16_384, (1 << 31) - 1, -1, -(1 << 31)])
def test_numbers_are_read_by_the_library(value: int) -> None:
    options = rpc_pb2.criu_opts.FromString(number(1, 0) + number(2, value))

    assert options.pid == value


@pytest.mark.parametrize("length", [0, 1, 127, 128, 70_000])
def test_texts_are_read_by_the_library(length: int) -> None:
    options = rpc_pb2.criu_opts.FromString(number(1, 0) + text(37, b"x" * length) + text(37, b"y"))

    assert list(options.external) == ["x" * length, "y"]


def test_a_whole_response_is_read_by_the_library() -> None:
    notice = text(1, b"post-dump") + number(2, 4711)
    response = rpc_pb2.criu_resp.FromString(
        number(wire.RESP_TYPE, wire.NOTIFY)
        + number(wire.RESP_SUCCESS, True)
        + text(wire.RESP_NOTIFY, notice)
    )

    assert response.type == rpc_pb2.NOTIFY
    assert response.success is True
    assert (response.notify.script, response.notify.pid) == ("post-dump", 4711)


def test_what_the_library_writes_is_read() -> None:
    options = rpc_pb2.criu_opts(images_dir_fd=7, pid=-2, log_file="dump.log", external=["a", "b"])
    request = rpc_pb2.criu_req(type=rpc_pb2.DUMP, opts=options, notify_success=False)

    top = list(fields(request.SerializeToString()))

    assert top == [(1, rpc_pb2.DUMP), (2, options.SerializeToString()), (3, 0)]
    inner = list(fields(options.SerializeToString()))
    assert sorted(inner, key=lambda field: field[0]) == [
        (1, 7),
        (2, (1 << 64) - 2),
        (10, b"dump.log"),
        (37, b"a"),
        (37, b"b"),
    ]


def test_fields_of_fixed_width_are_stepped_over() -> None:
    data = b"\x09" + b"12345678" + b"\x15" + b"1234" + number(3, 1)

    assert list(fields(data)) == [(1, b"12345678"), (2, b"1234"), (3, 1)]


def test_an_empty_message_has_no_fields() -> None:
    assert list(fields(b"")) == []


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x08", id="no value"),
        pytest.param(b"\x80", id="cut key"),
        pytest.param(b"\x08\x80", id="cut number"),
        pytest.param(b"\x08" + b"\x80" * 10 + b"\x01", id="eleven bytes of number"),
        pytest.param(b"\xff" * 20, id="endless number"),
        pytest.param(b"\x0a", id="no length"),
        pytest.param(b"\x0a\x02x", id="shorter than its length"),
        pytest.param(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", id="length of 9 exabytes"),
        pytest.param(b"\x09" + b"1234567", id="cut fixed64"),
        pytest.param(b"\x0d" + b"123", id="cut fixed32"),
        pytest.param(b"\x0b", id="group start"),
        pytest.param(b"\x0c", id="group end"),
        pytest.param(b"\x0e", id="wire type 6"),
        pytest.param(b"\x0f", id="wire type 7"),
    ],
)
def test_malformed_messages(data: bytes) -> None:
    with pytest.raises(ValueError, match="malformed"):
        list(fields(data))


def test_every_cut_of_a_real_request_is_malformed_or_a_whole_smaller_one() -> None:
    options = rpc_pb2.criu_opts(images_dir_fd=7, log_file="dump.log", external=["mnt[]:/x"])
    data = options.SerializeToString()
    whole = list(fields(data))

    for length in range(len(data)):
        try:
            read = list(fields(data[:length]))
        except ValueError:
            continue
        assert read == whole[: len(read)]
        assert len(read) < len(whole)
