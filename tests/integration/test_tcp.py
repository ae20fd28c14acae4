"""What becomes of connections: clients in a network of their own, and every byte looked at."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from agent.errors import DumpFailed, InvalidArgument
from agent.manifest import Options
from agent.restore import for_new_network
from agent.tcp import POLICIES, Policy
from bench.reports import Service, wait_until
from bench.runc import Container
from tests.integration.aftermath import nothing_left
from tests.integration.lab import Lab
from tests.integration.wired import (
    BESIDE,
    ELSEWHERE,
    HERE,
    HERE_6,
    PORT,
    THERE,
    Wired,
    move,
    options,
    place,
    wired,
)
from tests.networks import Stream, connect, echoed, filter_rules, in_network, socket_in

pytestmark = [pytest.mark.root, pytest.mark.criu]


@contextmanager
def clients(at: Wired) -> Iterator[list[Stream]]:
    """From outside over IPv4 and IPv6, and from within over loopback; bytes flow."""
    with ExitStack() as stack:
        ways = [(at.outside, HERE), (at.outside, HERE_6), (at.inside, "127.0.0.1")]
        made = [stack.enter_context(Stream(*way, PORT)) for way in ways]
        for each in made:
            each.goes_on()
        yield made


def ended(container: Container) -> None:
    wait_until(lambda: container.status() == "absent", "the container ending")


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_checkpoint_disturbs_nobody(lab: Lab, policy: Policy) -> None:
    at = wired(lab.runc)
    with clients(at) as connected:
        for _ in range(2):
            assert (await lab.checkpoint(at.container, options=options(policy))).streamed
            for each in connected:
                each.goes_on()
        assert filter_rules(at.inside) == []
        assert (at.report.read(Service.ENDED), at.report.read(Service.BROKEN)) == (0, 0)
        assert at.report.read(Service.ACCEPTED) == 3


@pytest.mark.parametrize("policy", ["established", "skip-in-flight"])
async def test_connections_live_through_a_restore_where_they_were(lab: Lab, policy: Policy) -> None:
    at = wired(lab.runc)
    with clients(at) as connected:
        done = await lab.checkpoint(at.container, stop=True, options=options(policy))
        ended(at.container)
        # Nobody answers what comes meanwhile, or the kernel would, with a reset.
        assert filter_rules(at.inside)
        await lab.restore(done.checkpoint_id)
        assert filter_rules(at.inside) == []
        for each in connected:
            each.goes_on()
        assert (at.report.read(Service.ENDED), at.report.read(Service.BROKEN)) == (0, 0)
        with connect(at.outside, HERE, PORT) as new:
            assert echoed(new, b"new") == b"new"


@pytest.mark.parametrize("policy", POLICIES)
async def test_elsewhere_connections_end_and_new_ones_come(lab: Lab, policy: Policy) -> None:
    at = wired(lab.runc)
    with clients(at) as connected:
        done = await lab.checkpoint(at.container, options=options(policy))
        for each in connected:
            each.goes_on()
        at.container.delete()
        for each in connected:
            assert isinstance(each.ended(), ConnectionError)
    # Of the process that is gone: what counts is what the next one finds.
    for slot in (Service.ACCEPTED, Service.ENDED, Service.BROKEN):
        at.report.write(slot, 0)
    inside, outside = place(lab.runc, f"{ELSEWHERE}/24", f"{BESIDE}/24")
    move(at.container, inside)

    await lab.restore(done.checkpoint_id, options=for_new_network(Options()))

    # One that was just being written to is broken; the others have come to their end.
    def gone() -> int:
        return at.report.read(Service.ENDED) + at.report.read(Service.BROKEN)

    wait_until(lambda: gone() == 3, "the server seeing them gone")
    with Stream(outside, ELSEWHERE, PORT) as new:
        new.goes_on()
    assert at.report.read(Service.ACCEPTED) == 1
    assert filter_rules(inside) == []


async def test_connections_that_were_given_up_cannot_be_repaired(lab: Lab) -> None:
    at = wired(lab.runc)
    with connect(at.outside, HERE, PORT) as client:
        assert echoed(client, b"there") == b"there"
        done = await lab.checkpoint(at.container, options=options("close"))
        at.container.delete()
    with nothing_left(lab), pytest.raises(InvalidArgument, match="given up") as refused:
        await lab.restore(done.checkpoint_id, options=options("established"))
    assert refused.value.argument == "tcp"
    await lab.restore(done.checkpoint_id)


@contextmanager
def waiting(at: Wired) -> Iterator[socket.socket]:
    """A client that the kernel has connected to a server that does not accept it."""
    at.report.ask(Service.HOLD, Service.HELD)
    with connect(at.outside, HERE, PORT) as client:
        client.sendall(b"waiting")

        def queued() -> bool:
            listed = in_network(at.inside, "ss", "-Htln", f"sport = :{PORT}")
            return listed.split()[1] == "1"

        wait_until(queued, "the client waiting")
        yield client


@pytest.mark.parametrize("policy", ["established", None])
async def test_a_connection_that_waits_has_to_be_skipped(lab: Lab, policy: Policy | None) -> None:
    at = wired(lab.runc)
    given = options(policy) if policy else Options(tcp_close=True)
    with waiting(at) as client:
        with nothing_left(lab), pytest.raises(DumpFailed, match="--tcp skip-in-flight"):
            await lab.checkpoint(at.container, options=given)
        at.report.write(Service.HOLD, 0)
        assert client.recv(7) == b"waiting"


@pytest.mark.parametrize("policy", ["skip-in-flight", "close"])
async def test_a_connection_that_waits_is_skipped(lab: Lab, policy: Policy) -> None:
    at = wired(lab.runc)
    with connect(at.outside, HERE, PORT) as accepted:
        assert echoed(accepted, b"one") == b"one"
        with waiting(at) as client:
            await lab.checkpoint(at.container, options=options(policy))
            at.report.write(Service.HOLD, 0)
            assert client.recv(7) == b"waiting"
            assert echoed(accepted, b"two") == b"two"


async def test_of_what_is_skipped_only_the_restore_knows(lab: Lab) -> None:
    at = wired(lab.runc)
    with connect(at.outside, HERE, PORT) as accepted:
        assert echoed(accepted, b"one") == b"one"
        with waiting(at) as client:
            skipping = options("skip-in-flight")
            done = await lab.checkpoint(at.container, stop=True, options=skipping)
            ended(at.container)
            at.report.write(Service.HOLD, 0)
            await lab.restore(done.checkpoint_id)
            assert echoed(accepted, b"two") == b"two"
            # The server has never heard of it; the kernel says so as soon as it is asked.
            with pytest.raises(ConnectionError):
                echoed(client, b"three")


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_connection_that_comes_is_no_obstacle(lab: Lab, policy: Policy) -> None:
    at = wired(lab.runc)
    drop = ("INPUT", "-p", "tcp", "--sport", str(PORT), "-j", "DROP")
    in_network(at.outside, "iptables", "-A", *drop)
    with socket_in(at.outside) as client:
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.connect((HERE, PORT))
        half = ("ss", "-Htan", "state", "syn-recv")
        wait_until(lambda: bool(in_network(at.inside, *half)), "half a connection")
        await lab.checkpoint(at.container, options=options(policy))
        in_network(at.outside, "iptables", "-D", *drop)
        client.settimeout(40)
        # Once the kernel has sent its next SYN.
        wait_until(lambda: bool(in_network(at.outside, "ss", "-Htn", f"dport = :{PORT}")), "it")
        assert echoed(client, b"half") == b"half"


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_connection_that_goes_out_is_no_obstacle(lab: Lab, policy: Policy) -> None:
    at = wired(lab.runc)
    at.report.write(Service.TO_ADDRESS, int.from_bytes(socket.inet_aton(THERE)))
    at.report.write(Service.TO_PORT, PORT)
    drop = ("INPUT", "-p", "tcp", "--dport", str(PORT), "-j", "DROP")
    in_network(at.outside, "iptables", "-A", *drop)
    at.report.ask(Service.DIAL, Service.DIALS)
    await lab.checkpoint(at.container, options=options(policy))
    assert at.report.read(Service.DIALED) == 0
    in_network(at.outside, "iptables", "-D", *drop)
    with socket_in(at.outside) as listener:
        listener.bind((THERE, PORT))
        listener.listen()
        wait_until(lambda: at.report.read(Service.DIALED) == 1, "it being connected")


async def test_who_gives_connections_up_leaves_no_lock(lab: Lab) -> None:
    at = wired(lab.runc)
    await lab.checkpoint(at.container, stop=True)
    ended(at.container)
    assert filter_rules(at.inside) == []


@pytest.mark.parametrize("policy", ["skip-in-flight", "close"])
async def test_what_runc_has_no_flag_for_reaches_criu_through_files(
    lab: Lab, policy: Policy
) -> None:
    file = lab.directory / "criu.conf"
    file.write_text("ghost-limit 2M\n")
    at = wired(lab.runc, annotations={"org.criu.config": str(file)})
    with waiting(at), connect(at.outside, HERE, PORT):
        done = await lab.checkpoint(at.container, options=options(policy))
        at.container.delete()
    assert not done.streamed
    move(at.container, place(lab.runc, f"{ELSEWHERE}/24", f"{BESIDE}/24")[0])
    restored = await lab.restore(done.checkpoint_id, options=for_new_network(Options()))
    assert not restored.streamed
