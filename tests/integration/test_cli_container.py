"""The command line on a real container: there and back, refused, and interrupted half-way."""

from __future__ import annotations

import signal

import pytest

from bench.bundle import COUNTER, family
from bench.reports import Counter, wait_until
from bench.runc import Container
from tests.cli_process import PATIENCE, only_document, run_cli, start_cli
from tests.integration.lab import Lab

pytestmark = [pytest.mark.root, pytest.mark.criu]


def told(lab: Lab) -> list[str]:
    """Where things are, in options of ``checkpoint``."""
    directories = ["--runc-root", str(lab.runc.path), "--state-dir", str(lab.state_dir)]
    return [*directories, "--store", lab.store.url]


def counting(lab: Lab) -> Container:
    """A container whose counter has begun."""
    container = lab.runc.start(lab.runc.build(COUNTER))
    container.report("counter").wait_beyond(Counter.TICKS, 20)
    return container


def assert_untouched(lab: Lab, container: Container) -> None:
    """It runs on, and nothing is left of an operation."""
    report = container.report("counter")
    report.wait_beyond(Counter.TICKS, report.read(Counter.TICKS) + 20)
    assert container.status() == "running"
    assert report.read(Counter.RESUMES) == 0
    assert lab.stored() == []
    assert lab.operations() == []


def test_there_and_back(lab: Lab) -> None:
    container = counting(lab)
    done = run_cli(
        *("checkpoint", container.id, *told(lab), "--streams", "2", "--compression", "lz4"),
        *("--name", "before the upgrade", "-o", "json"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    result = only_document(done.stdout)
    assert (result["streams"], result["codec"], result["streamed"]) == (2, "lz4", True)
    assert result["path"] == f"{lab.store.url}/{result['checkpoint_id']}"
    assert 0 < result["frozen_seconds"] < result["wall_seconds"]
    assert "unaccounted" in result["phases"]
    assert container.status() == "running"

    found = only_document(run_cli("inspect", result["path"], "-o", "json").stdout)
    assert found["name"] == "before the upgrade"
    assert [one["name"] for one in found["members"][0]["processes"]] == ["counter"]

    container.delete()
    done = run_cli("restore", result["path"], "--state-dir", str(lab.state_dir), "-o", "json")
    assert (done.returncode, done.stderr) == (0, "")
    assert only_document(done.stdout)["pid"] == container.pid()
    report = container.report("counter")
    wait_until(lambda: report.read(Counter.RESUMES) == 1, "the counter going on")


def test_for_people(lab: Lab) -> None:
    container = counting(lab)
    done = run_cli("checkpoint", container.id, *told(lab))
    assert done.returncode == 0
    assert done.stdout.startswith("Checkpointed, still running.\npath    file:///")
    names = [line.split()[0] for line in done.stdout.splitlines()[1:]]
    assert names == ["path", "frozen", "wall", "raw", "stored", "as", "images", "phases"]
    assert "\x1b" not in done.stdout + done.stderr


def test_refused_by_criu_until_it_is_told_more(lab: Lab) -> None:
    container = lab.runc.start(lab.runc.build(COUNTER, family()))
    done = run_cli("checkpoint", container.id, *told(lab))
    assert (done.returncode, done.stdout) == (7, "")
    assert "pass --tcp-established" in done.stderr
    assert "state: it runs as before; nothing was stored\n" in done.stderr
    log = done.stderr.partition("\nlog:\n")[2]
    assert "Error (criu/" in log
    assert_untouched(lab, container)

    done = run_cli("checkpoint", container.id, *told(lab), "--tcp-established", "-o", "json")
    assert done.returncode == 0
    found = only_document(
        run_cli("inspect", only_document(done.stdout)["path"], "-o", "json").stdout
    )
    assert found["members"][0]["options"]["tcp_established"] is True


def test_unknown_container(lab: Lab) -> None:
    done = run_cli("checkpoint", "nobody", *told(lab), "-o", "json")
    assert (done.returncode, done.stderr) == (4, "")
    assert only_document(done.stdout)["error"]["code"] == "target_not_found"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_while_it_is_frozen(lab: Lab, number: signal.Signals) -> None:
    container = counting(lab)
    criu, _ = lab.hook("pre-dump")
    with start_cli(
        *("checkpoint", container.id, *told(lab), "-o", "json"),
        env={"CHECKPOINT_AGENT_CRIU": str(criu.program)},
    ) as process:
        assert process.stderr is not None
        wait_until(criu.reached, "CRIU reaching the hook")
        process.send_signal(number)
        assert process.stderr.readline() == f"{number.name}: stopping, in order\n"
        process.send_signal(number)
        assert process.stderr.readline().startswith(f"{number.name}: still stopping")
        criu.release()
        out, err = process.communicate(timeout=PATIENCE)

    assert (process.returncode, err) == (128 + number, "")
    error = only_document(out)["error"]
    assert (error["code"], error["exit_code"]) == ("interrupted", 128 + number)
    assert_untouched(lab, container)


def test_thaw_after_a_kill(lab: Lab) -> None:
    container = counting(lab)
    criu, _ = lab.hook("pre-dump")
    with start_cli(
        *("checkpoint", container.id, *told(lab)),
        env={"CHECKPOINT_AGENT_CRIU": str(criu.program)},
    ):
        wait_until(criu.reached, "CRIU reaching the hook")
    # Killed on leaving the block.
    criu.release()

    def recovered() -> bool:
        # As long as runc still rolls back, the operation is not abandoned.
        done = run_cli("thaw", "--all", "--state-dir", str(lab.state_dir), "-o", "json")
        assert (done.returncode, done.stderr) == (0, "")
        return bool(only_document(done.stdout)["recovered"])

    wait_until(recovered, "the operation being abandoned")
    assert_untouched(lab, container)
