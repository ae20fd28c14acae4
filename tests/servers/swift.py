"""A real S3 server for tests: OpenStack Swift with its s3api middleware, from Debian's packages.

Four processes on loopback (proxy, account, container, object), one copy of everything, out of one
temporary folder. Needs swift-proxy, swift-account, swift-container and swift-object; the packages'
own services and /etc/swift play no part.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.servers.s3 import S3Server

DAEMONS = ("account", "container", "object", "proxy")
KEY, SECRET = "test:tester", "testing"  # tempauth's account:user and its password
READY_SECONDS = 30.0
STOP_SECONDS = 5.0

_SERVER = """\
[DEFAULT]
swift_dir = {root}
devices = {root}/devices
mount_check = false
disable_fallocate = true
fallocate_reserve = 0
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""

# tempauth insists on a cache. Nobody listens on port 1, which Swift takes for an empty one.
_PROXY = """\
[DEFAULT]
swift_dir = {root}
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
[pipeline:main]
pipeline = catch_errors healthcheck cache listing_formats bulk s3api tempauth slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
allow_account_management = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:1
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
"""

_SWIFT_CONF = "[swift-hash]\nswift_hash_path_prefix = tests\nswift_hash_path_suffix = tests\n"

# Run by the system's Python, where Swift lives: a ring of 2**2 partitions and one device each.
_RINGS = """\
import sys
from swift.common.ring import RingBuilder
for name, port in (pair.split(":") for pair in sys.argv[2:]):
    builder = RingBuilder(2, 1, 0)
    builder.add_dev({"region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port),
                     "device": "d1", "weight": 1, "meta": ""})
    builder.rebalance()
    builder.get_ring().save(f"{sys.argv[1]}/{name}.ring.gz")
"""


@contextlib.contextmanager
def swift_server() -> Iterator[S3Server]:
    """Start the four daemons, wait until they answer, and end them at exit. Leaves nothing."""
    for kind in DAEMONS:
        if shutil.which(f"swift-{kind}-server") is None:
            raise RuntimeError(f"no swift-{kind}-server; `make setup` installs it")
    with tempfile.TemporaryDirectory(prefix="swift-") as folder, contextlib.ExitStack() as stack:
        root = Path(folder)
        ports = dict(zip(DAEMONS, _free_ports(len(DAEMONS)), strict=True))
        _configure(root, ports)
        daemons = [stack.enter_context(_daemon(root, kind)) for kind in DAEMONS]
        _wait_ready(root, ports, daemons)
        yield S3Server(f"http://127.0.0.1:{ports['proxy']}", KEY, SECRET)


def _free_ports(count: int) -> list[int]:
    """Distinct ports nobody listens on: Swift's rings must name them before it starts."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _configure(root: Path, ports: dict[str, int]) -> None:
    (root / "devices" / "d1").mkdir(parents=True)
    (root / "swift.conf").write_text(_SWIFT_CONF)
    user = "root" if os.geteuid() == 0 else os.environ["USER"]
    for kind, port in ports.items():
        template = _PROXY if kind == "proxy" else _SERVER
        text = template.format(root=root, port=port, kind=kind, user=user)
        (root / f"{kind}.conf").write_text(text)
    rings = [f"{kind}:{port}" for kind, port in ports.items() if kind != "proxy"]
    subprocess.run(
        ["/usr/bin/python3", "-I", "-W", "ignore", "-c", _RINGS, str(root), *rings],
        check=True,
        timeout=READY_SECONDS,
        env={"PATH": os.environ["PATH"]},
    )


@contextlib.contextmanager
def _daemon(root: Path, kind: str) -> Iterator[subprocess.Popen[bytes]]:
    with (root / f"{kind}.log").open("wb") as log:
        process = subprocess.Popen(
            # A test run that is killed takes them with it.
            ["setpriv", "--pdeathsig", "TERM", f"swift-{kind}-server", root / f"{kind}.conf", "-v"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"PATH": os.environ["PATH"]},  # not the tests' PYTHON* variables
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(root: Path, ports: dict[str, int], daemons: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    for kind, daemon in zip(DAEMONS, daemons, strict=True):
        while not _answers(ports[kind]):
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"swift-{kind}: {(root / f'{kind}.log').read_text()}")
            time.sleep(0.05)


def _answers(port: int) -> bool:
    """Whether something speaks HTTP there; any status will do."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/healthcheck")
        return connection.getresponse().status > 0
    except OSError:
        return False
    finally:
        connection.close()
