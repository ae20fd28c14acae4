"""Containers as people confine them: each comes back as it was, and can be checkpointed again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.doctor.rights import capability_finding
from agent.errors import DumpFailed
from agent.host.process import is_taken
from bench.bundle import COUNTER, Bundle
from bench.reports import Counter, wait_until
from bench.runc import Container
from tests.integration.lab import Lab

pytestmark = [pytest.mark.root, pytest.mark.criu]

# A configuration of OCI, as JSON.
Config = dict[str, Any]

# Of whom nobody is by that number, here or in the container.
SOMEBODY = 1000
# Where the ids of a user namespace begin on the machine.
FIRST_ID = 200_000


def seccomp(config: Config) -> None:
    """As the default profile of an engine, but for the length of the list."""
    refused = {"names": ["kexec_load", "mount", "swapon"], "action": "SCMP_ACT_ERRNO"}
    config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [refused]}


def user_namespace(config: Config) -> None:
    """As with `hostUsers: false`."""
    mapping = [{"containerID": 0, "hostID": FIRST_ID, "size": 1 << 16}]
    config["linux"] |= {"uidMappings": mapping, "gidMappings": mapping}
    config["linux"]["namespaces"].append({"type": "user"})


def read_only_root(config: Config) -> None:
    """All but its report, and file systems in memory."""
    config["root"]["readonly"] = True
    state = Path(config["root"]["path"]).absolute() / "state"
    config["mounts"] += [
        {"destination": "/state", "type": "bind", "source": str(state), "options": ["rbind"]},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]},
    ]


def mounts(config: Config) -> None:
    """Of the machine's directories, with whatever is mounted below them."""
    usual = {"type": "bind", "source": "/usr"}
    config["mounts"] += [
        {"destination": "/tmp/one", "options": ["rbind", "ro", "rslave"], **usual},
        {"destination": "/tmp/other", "options": ["rbind", "ro", "rshared"], **usual},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid"]},
    ]


def limits(config: Config) -> None:
    """Resources, the umask, and a cgroup namespace."""
    config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "hard": 256, "soft": 128}]
    config["process"]["oomScoreAdj"] = 500
    config["process"]["user"]["umask"] = 0o077
    config["linux"]["namespaces"].append({"type": "cgroup"})


def machine_namespaces(config: Config) -> None:
    """As with `hostPID` and `hostIPC`: its processes get the pids that they had."""
    ours = ("pid", "ipc", "uts")
    namespaces = config["linux"]["namespaces"]
    config["linux"]["namespaces"] = [one for one in namespaces if one["type"] not in ours]
    del config["hostname"]


def somebody(config: Config) -> None:
    """As with `runAsNonRoot`."""
    config["process"]["user"] = {"uid": SOMEBODY, "gid": SOMEBODY}


KINDS = [seccomp, user_namespace, read_only_root, mounts, limits, machine_namespaces, somebody]


def build(lab: Lab, confine: Callable[[Config], None]) -> Bundle:
    """A bundle that its user can use, whoever that is."""
    bundle = lab.runc.build(COUNTER)
    path = bundle.path / "config.json"
    config = json.loads(path.read_text())
    config["root"]["path"] = str(bundle.path / "rootfs")
    confine(config)
    path.write_text(json.dumps(config))
    owner = FIRST_ID if confine is user_namespace else SOMEBODY if confine is somebody else 0
    for each in (bundle.path / "rootfs", *(bundle.path / "rootfs").rglob("*")):
        os.chown(each, owner, owner, follow_symlinks=False)
    # It is root's alone.
    bundle.path.parent.chmod(0o711)
    return bundle


@pytest.mark.parametrize("confine", KINDS, ids=lambda kind: kind.__name__)
async def test_there_and_back_twice(lab: Lab, confine: Callable[[Config], None]) -> None:
    container = lab.runc.start(build(lab, confine))
    report = container.report("counter")
    report.wait_beyond(Counter.TICKS, 20)
    if confine is somebody and "CAP_SYS_RESOURCE" in capability_finding().detail:
        with pytest.raises(DumpFailed, match="needs CAP_SYS_RESOURCE"):
            await lab.checkpoint(container, stop=True)
        report.wait_beyond(Counter.TICKS, report.read(Counter.TICKS) + 20)
        return
    before = confinement(container)
    for times in (1, 2):
        await there_and_back(lab, container)
        assert report.read(Counter.RESUMES) == times
        assert confinement(container) == before


async def there_and_back(lab: Lab, container: Container) -> None:
    """It counts from where it was."""
    pid = container.pid()
    done = await lab.checkpoint(container, stop=True)
    wait_until(lambda: container.status() == "absent", "the container ending")
    # Whose child it was may take its time.
    wait_until(lambda: not is_taken(pid), "its pid being free")
    report = container.report("counter")
    report.write(Counter.TICKS, 0)
    await lab.restore(done.checkpoint_id)
    report.wait_beyond(Counter.TICKS, 20)


def confinement(container: Container) -> list[str]:
    """What the kernel says its first process may do."""
    proc = Path(f"/proc/{container.pid()}")
    names = ("Uid", "Gid", "Umask", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp")
    status = (proc / "status").read_text().splitlines()
    return [
        *(line for line in status if line.partition(":")[0] in names),
        *((proc / name).read_text() for name in ("limits", "uid_map", "oom_score_adj")),
        # Without numbers, which are others each time.
        *sorted(line.split()[4] for line in (proc / "mountinfo").read_text().splitlines()),
    ]
