"""Notices of clouds that take a machine back: what each metadata service says, and how it is asked.

The three are asked for ever, each at the pace that its maker recommends.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, Protocol, TypeGuard

from agent.drain.fetch import Answer, FetchFailed, fetch
from agent.drain.notice import Notice, Tell
from agent.logs import get_logger

log = get_logger(__name__)

# Seconds for one answer, and until the next try after a failure, at first and at most: of the 30
# that most clouds give, a service that has just come back should not cost more.
_SECONDS: Final = 5.0
_FIRST_RETRY, _LAST_RETRY = 1.0, 10.0


class Service(Protocol):
    """A cloud's service; ``address`` is where it is, ``pause`` seconds between two questions."""

    address: str
    pause: float

    async def ask(self, base: str) -> Notice | None:
        """What it says now. Raises FetchFailed."""


class CloudSource:
    """Asks one service. One that does not answer is told of once, until it answers again."""

    def __init__(self, name: str, service: Service, url: str) -> None:
        """``url``: instead of the service's own address, if not ""."""
        self._name, self._service = name, service
        self._base = url or service.address

    @property
    def name(self) -> str:
        """The cloud's."""
        return self._name

    async def watch(self, tell: Tell) -> None:
        """See Source."""
        retry, announced = _FIRST_RETRY, False
        while True:
            try:
                notice = await self._service.ask(self._base)
            except FetchFailed as error:
                if retry == _FIRST_RETRY:
                    log.warning("no word from the cloud", cloud=self._name, reason=str(error))
                await asyncio.sleep(retry)
                retry = min(2 * retry, _LAST_RETRY)
                continue
            if retry > _FIRST_RETRY:
                log.info("the cloud answers again", cloud=self._name)
            retry = _FIRST_RETRY
            if notice is not None or announced:
                tell(notice)
            announced = notice is not None
            await asyncio.sleep(self._service.pause)


class Aws:
    """EC2: two minutes before a spot instance is taken back. IMDSv2, whose token is asked for."""

    address = "http://169.254.169.254"
    # As its documentation recommends.
    pause = 5.0
    # Seconds that a token is good for; at most six hours.
    _TOKEN_SECONDS: Final = 21_600

    def __init__(self) -> None:
        self._token, self._renew_at = "", 0.0

    async def ask(self, base: str) -> Notice | None:
        """See Service."""
        if time.monotonic() >= self._renew_at:
            ttl = {"X-aws-ec2-metadata-token-ttl-seconds": str(self._TOKEN_SECONDS)}
            answer = await fetch(
                f"{base}/latest/api/token", method="PUT", headers=ttl, seconds=_SECONDS
            )
            token = _expect(answer, 200).text
            if not (token.isascii() and token.isprintable()):
                raise FetchFailed("answered what is no token")
            self._token = token
            self._renew_at = time.monotonic() + self._TOKEN_SECONDS / 2
        answer = await fetch(
            f"{base}/latest/meta-data/spot/instance-action",
            headers={"X-aws-ec2-metadata-token": self._token},
            seconds=_SECONDS,
        )
        if answer.status == 404:
            return None
        if answer.status == 401:
            self._renew_at = 0.0
        said = _object(_expect(answer, 200))
        action = _word(said, "action")
        if action not in ("terminate", "stop", "hibernate"):
            raise FetchFailed("answered no action")
        return Notice(f"spot instance: {action}", _until(_word(said, "time")))


class Gcp:
    """Compute Engine: a preempted machine has 30 seconds. Each question waits for a change."""

    # metadata.google.internal, without asking a DNS that may be gone already.
    address = "http://169.254.169.254"
    pause = 0.0
    # Seconds that the service waits for a change before it answers all the same.
    _WAIT: Final = 60
    _NOTICE_SECONDS: Final = 30.0

    def __init__(self) -> None:
        # No answer has this one: the first question is answered at once.
        self._etag = "0"

    async def ask(self, base: str) -> Notice | None:
        """See Service."""
        query = f"wait_for_change=true&timeout_sec={self._WAIT}&last_etag={self._etag}"
        answer = await fetch(
            f"{base}/computeMetadata/v1/instance/preempted?{query}",
            headers={"Metadata-Flavor": "Google"},
            seconds=self._WAIT + _SECONDS,
        )
        _expect(answer, 200)
        # What anybody else would answer at that address is no word of Google's.
        if answer.headers.get("metadata-flavor") != "Google":
            raise FetchFailed("not answered by Google's metadata service")
        etag = answer.headers.get("etag", "")
        changed, self._etag = etag != self._etag, etag if etag.isalnum() else "0"
        if not changed or self._etag == "0":
            await asyncio.sleep(1.0)  # a service that does not wait
        preempted = answer.text == "TRUE"
        return Notice("preempted", self._NOTICE_SECONDS) if preempted else None


class Azure:
    """Scheduled events of this very machine: those of its whole availability set are listed."""

    address = "http://169.254.169.254"
    pause = 1.0
    # Seconds: the first question switches the service on, which may take two minutes.
    _PATIENCE: Final = 130.0
    _HEADERS: Final = {"Metadata": "true"}
    # What a machine's memory does not survive. `Freeze` it does.
    _EVENTS: Final = ("Preempt", "Terminate", "Redeploy", "Reboot")

    async def ask(self, base: str) -> Notice | None:
        """See Service."""
        answer = await fetch(
            f"{base}/metadata/scheduledevents?api-version=2020-07-01",
            headers=self._HEADERS,
            seconds=self._PATIENCE,
        )
        events = _object(_expect(answer, 200)).get("Events")
        events = [each for each in events if isinstance(each, dict)] if _is_list(events) else []
        events = [each for each in events if _word(each, "EventType") in self._EVENTS]
        if not events:
            return None
        path = "/metadata/instance/compute/name?api-version=2021-02-01&format=text"
        answer = await fetch(f"{base}{path}", headers=self._HEADERS, seconds=_SECONDS)
        machine = _expect(answer, 200).text
        notices = [_announced(each) for each in events if _is_of(machine, each)]
        # Of which nobody knows when comes before all others.
        return min(notices, key=lambda each: each.seconds or 0.0, default=None)


def _is_list(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)


def _is_of(machine: str, event: Mapping[str, object]) -> bool:
    resources = event.get("Resources")
    return _is_list(resources) and machine in resources


def _announced(event: Mapping[str, object]) -> Notice:
    # Not said any more once it has begun: then there is no time left to speak of.
    before = _word(event, "NotBefore")
    reason = f"scheduled event: {_word(event, 'EventType')}"
    return Notice(reason, _until(before) if before else None)


SERVICES: Final[Mapping[str, type[Aws] | type[Gcp] | type[Azure]]] = {
    "aws": Aws, "gcp": Gcp, "azure": Azure,
}  # fmt: skip


def _expect(answer: Answer, status: int) -> Answer:
    if answer.status != status:
        raise FetchFailed(f"answered {answer.status}")
    return answer


def _object(answer: Answer) -> dict[str, object]:
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise FetchFailed("answered what is no JSON") from error
    if not isinstance(found, dict):
        raise FetchFailed("answered no JSON object")
    return found


def _word(said: Mapping[str, object], key: str) -> str:
    """A short text as it may stand in a log; "" when it is none."""
    value = said.get(key)
    return value[:64] if isinstance(value, str) and value.isprintable() else ""


def _until(text: str) -> float | None:
    """Seconds until a time, in AWS's form or in HTTP's; None when it is none.

    Nor when it is over: the node is still there, so its clock is wrong, or the cloud is late.
    """
    try:
        when = parsedate_to_datetime(text) if "," in text else datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    left = (when - datetime.now(UTC)).total_seconds()
    return left if left > 0 else None
