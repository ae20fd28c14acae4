"""The bundle that a DaemonSet places: on a machine without Python, libraries, CRIU or iptables."""

from __future__ import annotations

import json

import pytest

from bench.bundle import COUNTER, family
from bench.reports import Counter, wait_until
from bench.runc import Container
from tests.bundles import BareMachine, host_bundle
from tests.cli_process import only_document
from tests.integration.lab import Lab

pytestmark = [pytest.mark.root, pytest.mark.criu]

# Somewhere, and not where it was built.
PLACE = "srv/agents/one"

# What the agent stands on and Python does not bring; each would fail on a missing library.
IMPORTS = """
import asyncpg, greenlet, grpc, lz4.frame, nats, obstore, psutil, pycriu, pydantic_core, sqlite3
import ssl, sys, xxhash, zstandard
assert zstandard.backend == "cext"
assert all(path.startswith(sys.prefix) for path in sys.path), sys.path
assert len(ssl.create_default_context().get_ca_certs()) > 100
print(sys.executable, sys.prefix)
"""

# As agent.host writes its launcher and starts it: the interpreter is a script itself.
SCRIPT = """#!/{place}/bin/python -IS
import subprocess, sys
again = [sys.executable, "-IS", "-c", "import sys; print(sys.executable, sys.flags.no_site)"]
print(subprocess.check_output(again, text=True, env={{}}), sys.argv[1:], sep="")
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> BareMachine:
    made = BareMachine(tmp_path_factory.mktemp("bare"))
    (made.root / PLACE).parent.mkdir(parents=True)
    host_bundle(made.root / PLACE)
    return made


def test_it_is_no_larger_than_it_has_to_be(machine: BareMachine) -> None:
    # It is pulled by every node, and copied to its disk twice.
    files = [path for path in (machine.root / PLACE).rglob("*") if not path.is_symlink()]
    assert sum(path.stat().st_size for path in files if path.is_file()) < 250_000_000
    # The API reads it as somebody else.
    closed = [path for path in files if path.stat().st_mode & 0o004 == 0]
    assert closed == []


def test_it_stands_on_nothing_of_the_machine(machine: BareMachine) -> None:
    python = f"/{PLACE}/bin/python"
    assert machine.run(["/usr/bin/python3"]).returncode == 127
    done = machine.run(
        [python, "-I", "-c", IMPORTS],
        {"SSL_CERT_FILE": f"/{PLACE}/share/ca-certificates.crt"},
    )
    assert (done.stdout.split(), done.stderr) == ([python, f"/{PLACE}"], "")


def test_its_python_is_an_interpreter_for_scripts(machine: BareMachine) -> None:
    script = machine.root / "script"
    script.write_text(SCRIPT.format(place=PLACE))
    script.chmod(0o755)
    done = machine.run(["/script", "a b", "c"])
    assert (done.stdout, done.stderr) == (f"/{PLACE}/bin/python 1\n['a b', 'c']\n", "")


def test_it_is_found_through_links(machine: BareMachine) -> None:
    for link, target in (("current", PLACE), ("bin/agent", f"/{PLACE}/bin/checkpoint-agent")):
        (machine.root / link).symlink_to(target)
    for program in ("/current/bin/checkpoint-agent", "/bin/agent", "agent"):
        done = machine.run([program, "--version"], {"PATH": "/usr/bin:/bin:/sbin:/usr/sbin"})
        assert (done.returncode, done.stderr) == (0, ""), program


def test_the_doctor_finds_everything_there(machine: BareMachine) -> None:
    done = machine.run([f"/{PLACE}/bin/checkpoint-agent", "doctor", "-o", "json"])
    findings = {each["name"]: each for each in only_document(done.stdout)["findings"]}
    assert [name for name, each in findings.items() if each["status"] == "fail"] == []
    assert f"(/{PLACE}/bin/criu)" in findings["criu"]["detail"]
    assert findings["iptables-restore"]["status"] == "ok"


def _roundtrip(machine: BareMachine, lab: Lab, container: Container, *options: str) -> None:
    agent = f"/{PLACE}/bin/checkpoint-agent"
    state = ["--state-dir", str(lab.state_dir), "-o", "json"]
    done = machine.run(
        [agent, "checkpoint", container.id, "--runc-root", str(lab.runc.path),
         "--store", lab.store.url, *options, *state],
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    taken = json.loads(done.stdout)
    assert taken["streamed"] is True, taken
    container.delete()
    done = machine.run([agent, "restore", taken["path"], *state])
    assert done.returncode == 0, done.stdout + done.stderr
    report = container.report("counter")
    wait_until(lambda: report.read(Counter.RESUMES) == 1, "the counter going on")


def test_there_and_back(machine: BareMachine, lab: Lab) -> None:
    container = lab.runc.start(lab.runc.build(COUNTER))
    container.report("counter").wait_beyond(Counter.TICKS, 20)
    _roundtrip(machine, lab, container)


def test_connections_are_locked_with_its_own_iptables(machine: BareMachine, lab: Lab) -> None:
    bundle = lab.runc.build(COUNTER, family(), netns=lab.runc.network())
    _roundtrip(machine, lab, lab.runc.start(bundle), "--tcp-established")


def test_a_writable_layer_is_packed_with_its_own_tar(machine: BareMachine) -> None:
    # busybox's, which a machine may have, has none of the options that are needed.
    words = ["tar", "--create", "--sparse", "--acls", "--xattrs", "--one-file-system", "/etc"]
    assert machine.run(["/bin/busybox", *words]).returncode == 1
    done = machine.run([f"/{PLACE}/tools/first/tar", *words[1:]])
    assert done.returncode == 0, done.stderr
