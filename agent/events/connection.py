"""The connection to the broker: made in the background, and made again for as long as we run.

A connection and everything that stands on it (subscriptions, streams looked up, pulls under way) is
one session; when it breaks, the session ends as a whole and the next one begins from nothing. So
there is one way to begin and none to repair. nats-py's own reconnecting is switched off: it keeps
futures that nobody completes, and ends for good when a server refuses credentials once.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Final

import nats.errors
from nats.aio.client import Client

from agent.errors import AgentError, BrokerFailed
from agent.events import credentials
from agent.logs import get_logger, redacted
from agent.settings import Nats

log = get_logger(__name__)

# Seconds. From a blip to a broker that is gone for the day: doubled each time, and halved at random
# so that a thousand nodes do not come back in the same instant.
FIRST_DELAY: Final = 0.2
LONGEST_DELAY: Final = 15.0
# A session that held for so long was a good one: the next begins with the first delay again.
STEADY_SECONDS: Final = 10.0

CONNECT_SECONDS: Final = 5
# A broker that is there but silent is given up after three of them.
PING_SECONDS: Final = 10
# For what is still to be sent when a session ends in good order.
CLOSE_SECONDS: Final = 2

# Until something that was cancelled and goes on is cancelled again.
AGAIN_SECONDS: Final = 0.5

# What may go wrong with a broker. Anything else is a bug of ours.
FAILURES: Final = (nats.errors.Error, OSError, TimeoutError, AgentError)


class Connection:
    """One broker, or several that are one cluster.

    Args:
        name: what the broker's operators see who this is.

    Attributes:
        ready: whether a session is under way and has set up what it needs.
        problem: why not, in words without secrets; "" while ready.
    """

    def __init__(self, settings: Nats, name: str) -> None:
        self.ready = False
        self.problem = "not connected yet"
        self._settings = settings
        self._name = f"checkpoint-agent/{name}"
        self._urls = random.sample(settings.servers, len(settings.servers))
        self._client: Client | None = None
        self._up = asyncio.Event()

    async def run(self, session: Callable[[Client], Awaitable[None]]) -> None:
        """Hold one session after the other until this is cancelled.

        ``session`` says `set_up` once it is, and may end by raising any of FAILURES.
        """
        attempt = 0
        while True:
            url = self._urls[attempt % len(self._urls)]
            began = asyncio.get_running_loop().time()
            try:
                await self._hold(url, session)
            except FAILURES as error:
                if asyncio.get_running_loop().time() - began > STEADY_SECONDS:
                    attempt = 0
                self._note(url, error)
            delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(attempt, 10))
            attempt += 1
            await asyncio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311 - no secret

    def set_up(self) -> None:
        """A session has everything it needs."""
        self.ready, self.problem = True, ""
        log.info("broker is ready")

    async def send(self, subject: str, payload: bytes) -> None:
        """Send once there is a connection, however long that takes."""
        while True:
            await self._up.wait()
            with contextlib.suppress(*FAILURES):
                if self._client is not None:
                    await self._client.publish(subject, payload)
                    return
            await asyncio.sleep(FIRST_DELAY)

    async def flush(self) -> None:
        """Return when the broker has read everything so far, or does not seem to be there."""
        if self._client is not None:
            with contextlib.suppress(*FAILURES):
                await self._client.flush(CLOSE_SECONDS)

    async def _hold(self, url: str, session: Callable[[Client], Awaitable[None]]) -> None:
        """One session, from its beginning to its end; always raises."""
        options = credentials.read(self._settings)
        client = _Client(must_encrypt=credentials.wants_tls(self._settings))
        closed = asyncio.Event()
        try:
            await self._connect(client, url, closed, options)
            self._client = client
            self._up.set()
            log.info("connected to the broker", url=redacted(url))
            await until_one_ends(session(client), closed.wait())
            raise BrokerFailed(str(client.last_error or "the connection was closed"))
        finally:
            self.ready = False
            self._client = None
            self._up.clear()
            await _close(client)

    async def _connect(
        self, client: Client, url: str, closed: asyncio.Event, options: credentials.Options
    ) -> None:
        loop = asyncio.get_running_loop()
        failed: asyncio.Future[None] = loop.create_future()

        async def on_error(error: Exception) -> None:
            # Of the first attempt; nats-py goes on, and waits for ever for a TLS connection to
            # close that was never open.
            if not failed.done():
                failed.set_exception(BrokerFailed(words(error)))
                failed.exception()  # later errors end the session, and are seen there

        async def on_closed() -> None:
            closed.set()

        connecting = client.connect(
            servers=[url],
            name=self._name,
            allow_reconnect=False,
            connect_timeout=CONNECT_SECONDS,
            ping_interval=PING_SECONDS,
            error_cb=on_error,
            closed_cb=on_closed,
            **options,
        )
        async with asyncio.timeout(2 * CONNECT_SECONDS):
            await until_one_ends(connecting, failed)

    def _note(self, url: str, error: BaseException) -> None:
        """Say what went wrong, unless it is what went wrong the last time."""
        problem = redacted(words(error))
        if problem != self.problem:
            log.warning("no broker; trying again until there is", url=redacted(url), reason=problem)
        self.problem = problem


class _Client(Client):
    """nats-py's, but it says nothing in the clear that was to be encrypted.

    It takes a server at its word that there is no TLS, and would send it the password.
    """

    def __init__(self, *, must_encrypt: bool) -> None:
        super().__init__()
        self._must_encrypt = must_encrypt

    def _connect_command(self) -> bytes:
        if self._must_encrypt and not self._server_info.get("tls_required"):
            raise nats.errors.Error("TLS is configured and the broker does not offer it")
        return super()._connect_command()


async def until_one_ends(*parts: Awaitable[object]) -> None:
    """Run all parts until one of them ends; end the others, and raise what that one raised."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        while late := [task for task in tasks if not task.done()]:
            for task in late:
                task.cancel()
            # More than once: nats-py waits with asyncio.wait_for, which until Python 3.12 forgets a
            # cancellation that comes in the same moment as what it waits for.
            await asyncio.wait(late, timeout=AGAIN_SECONDS)
        await asyncio.gather(*tasks, return_exceptions=True)


async def _close(client: Client) -> None:
    with contextlib.suppress(*FAILURES):
        async with asyncio.timeout(CLOSE_SECONDS):
            if client.is_connected:
                await client.flush(CLOSE_SECONDS)
            await client.close()


def words(error: BaseException) -> str:
    """What an exception says, or its name where it says nothing."""
    return str(error) or type(error).__name__
