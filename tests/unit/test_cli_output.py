"""Numbers as people read them, results as programs do, and output that cannot be written."""

from __future__ import annotations

import io
import os
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from agent.cli.figures import duration, printable, ratio, size
from agent.cli.output import Output, console, emit, to_json
from agent.cli.tables import checkpoint_summary, restore_summary
from agent.report import CheckpointResult, RestoreResult
from tests.cli_process import CLI, PATIENCE, environment, only_document

CHECKPOINT = CheckpointResult(
    checkpoint_id="counter-20260102t030405-1a2b3c4d",
    path="s3://checkpoints/production/region-1/counter-20260102t030405-1a2b3c4d",
    name="before the upgrade",
    frozen_seconds=0.2041,
    wall_seconds=1.26,
    phases={"prepare": 0.0123, "dump": 0.9, "commit": 0.31, "unaccounted": 0.0377},
    bytes_raw=2 << 30,
    bytes_stored=700 << 20,
    chunks=520,
    streams=4,
    codec="zstd:1",
    streamed=True,
)


def test_gpus_are_told_with_the_part_of_the_freeze_that_they_took() -> None:
    stream = io.StringIO()
    models = ["NVIDIA H100", "NVIDIA H100"]
    with_gpus = replace(CHECKPOINT, gpus=models, cuda_seconds=0.125)
    for result in (CHECKPOINT, with_gpus):
        console(stream).print(checkpoint_summary(result))
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert [line for line in lines if "frozen" in line or "GPUs" in line] == [
        "frozen  204 ms",
        "frozen  204 ms, 125 ms of it by GPUs",
        "GPUs    2 x NVIDIA H100",
    ]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.98 KiB"),
        (1023, "1.00 KiB"),
        (10 << 10, "10.0 KiB"),
        (999 << 10, "999 KiB"),
        (1 << 20, "1.00 MiB"),
        ((1 << 20) * 9.996, "10.0 MiB"),
        (2 << 30, "2.00 GiB"),
        (1 << 50, "1024 TiB"),
    ],
)
def test_size(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.00 ms"),
        (0.000312, "0.31 ms"),
        (0.0451, "45.1 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.00 s"),
        (12.34, "12.3 s"),
        (99.96, "1 min 40 s"),
        (125.4, "2 min 05 s"),
        (7260.0, "2 h 01 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_ratio() -> None:
    assert ratio(31, 100) == "31 %"
    assert ratio(64, 0) == "-"


def test_foreign_text_cannot_drive_the_terminal() -> None:
    assert printable("a\x1b[31mb\r\nc\u202ed\udc80é") == "a\\x1b[31mb\\r\nc\\u202ed\\udc80é"


def test_json_of_nested_dataclasses_and_paths() -> None:
    @dataclass(frozen=True, slots=True)
    class Inner:
        where: Path

    @dataclass(frozen=True, slots=True)
    class Outer:
        items: list[Inner]

    assert only_document(to_json(Outer([Inner(Path("/x"))]))) == {"items": [{"where": "/x"}]}


def test_checkpoint_document_has_the_fixed_names(capsys: pytest.CaptureFixture[str]) -> None:
    emit(CHECKPOINT, Output.JSON, lambda: checkpoint_summary(CHECKPOINT))
    document = only_document(capsys.readouterr().out)
    assert document["path"] == CHECKPOINT.path
    assert document["phases"]["unaccounted"] == pytest.approx(0.0377)
    fixed = "checkpoint_id path frozen_seconds wall_seconds phases bytes_raw bytes_stored"
    assert {*fixed.split(), "streams", "codec", "streamed", "fallback_reason"} <= document.keys()


def test_checkpoint_summary_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    emit(CHECKPOINT, Output.TEXT, lambda: checkpoint_summary(CHECKPOINT))
    assert capsys.readouterr().out.splitlines() == [
        "Checkpointed, still running.",
        f"path    {CHECKPOINT.path}",
        "name    before the upgrade",
        "frozen  204 ms",
        "wall    1.26 s",
        "raw     2.00 GiB",
        "stored  700 MiB, 34 % of raw",
        "as      4 streams, 520 chunks, zstd:1",
        "images  streamed by CRIU",
        "phases  prepare 12.3 ms, dump 900 ms, commit 310 ms, unaccounted 37.7 ms",
    ]


def test_summary_folds_at_80_columns_without_losing_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    stream = io.StringIO()
    result = RestoreResult(
        path="file:///var/lib/" + "x" * 100,
        kind="process",
        target="4711",
        pid=4711,
        wall_seconds=0.5,
        phases={},
        bytes_raw=5,
        bytes_stored=6,
        streamed=False,
        fallback_reason="an option has no twin on the command line",
    )
    console(stream).print(restore_summary(result))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.count("x") for line in lines if not line.startswith("images")) == 100
    assert "through a directory: an option has no twin" in stream.getvalue()


def test_reader_that_has_gone_is_not_an_error_to_talk_about() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [*CLI, "doctor", "-o", "json"],
            check=False,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            env=environment(),
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("output", ["json", "text"])
def test_full_disk_below_standard_output(output: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*CLI, "doctor", "-o", output],
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            env=environment(),
        )
    assert done.returncode == 15
    assert done.stderr.splitlines() == [
        "error: cannot write the result to standard output: No space left on device",
        "state: the operation itself is complete",
    ]


def without(streams: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line without some of the standard streams, as cron's wrappers may start it."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {streams}', "sh", *CLI, *arguments],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(),
    )


@pytest.mark.parametrize("output", ["json", "text"])
def test_a_closed_standard_output(tmp_path: Path, output: str) -> None:
    done = without(">&-", "list", "--store", str(tmp_path), "-o", output)
    assert done.returncode == 15
    assert done.stderr.splitlines() == [
        "error: cannot write the result to standard output: it is closed",
        "state: the operation itself is complete",
    ]


def test_what_else_may_be_closed(tmp_path: Path) -> None:
    done = without("<&- 2>&-", "list", "--store", str(tmp_path), "-o", "json")
    assert (done.returncode, only_document(done.stdout)["checkpoints"]) == (0, [])
    refused = without("<&- 2>&-", "delete", str(tmp_path / "none"), "-o", "json")
    assert refused.returncode == 2


@pytest.mark.parametrize("place", ["full", "gone"])
def test_an_error_counts_for_more_than_where_it_was_to_be_printed(place: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    if place == "full":
        os.close(writing)
        writing = os.open("/dev/full", os.O_WRONLY)
    try:
        done = subprocess.run(
            [*CLI, "inspect", "/nowhere/none", "-o", "json"],
            check=False,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            env=environment(),
        )
    finally:
        os.close(writing)
    assert done.returncode == 10
    assert done.stderr.startswith("error: no checkpoint at file:///nowhere/none\n")
    assert "Traceback" not in done.stderr
