"""One heartbeat after the other, as long as the daemon lives."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agent.actions import Executor
from agent.errors import AgentError, InvalidArgument, ShuttingDown
from agent.heartbeat.figures import Figures
from agent.heartbeat.keeping import keep_newest
from agent.heartbeat.pressure import scarce
from agent.heartbeat.schedule import Beat, Schedule
from agent.heartbeat.wishes import Wish, wish_of
from agent.logs import get_logger
from agent.messages.model import Action, ActionRequest, CheckpointSpec
from agent.metrics import Metrics
from agent.pods import list_pods
from agent.settings import Settings
from agent.store import open_store
from agent.targets import PodRef

log = get_logger(__name__)

# Seconds between two looks at the node's pods: one that is made now is known well before the
# shortest interval is over. 20 ms for 200 containers.
LOOK_SECONDS: Final = 5.0

# Seconds that the loop rests at least, whatever is due.
_LEAST_PAUSE: Final = 0.05


class Heartbeats:
    """Checkpoints every pod that asks for it, one at a time."""

    def __init__(
        self,
        settings: Settings,
        executor: Executor,
        metrics: Metrics,
        *,
        paused: Callable[[], bool],
        proc: Path = Path("/proc"),
    ) -> None:
        """``paused``: whether something else, a drain, takes care of the node's pods."""
        self._settings, self._executor = settings, executor
        self._paused, self._proc = paused, proc
        self._figures = Figures(metrics)
        # Spreads writes out; nothing to be guessed.
        self._schedule = Schedule(settings.heartbeat.jitter, random.Random())  # noqa: S311
        self._store = open_store(settings.storage.store).url
        self._refused: dict[str, str] = {}
        self._held_up = False

    async def run(self) -> None:
        """Never returns, unless the executor is being stopped."""
        try:
            while True:
                wishes = await asyncio.to_thread(self._wishes)
                self._schedule.update(wishes, time.monotonic())
                if (beat := self._schedule.due(time.monotonic())) is not None:
                    await self._take_or_put_off(beat)
                pause = self._schedule.next_due() - time.monotonic()
                await asyncio.sleep(min(max(pause, _LEAST_PAUSE), LOOK_SECONDS))
        except ShuttingDown:
            return

    def _wishes(self) -> dict[str, Wish]:
        """By UID, of the pods whose containers run."""
        found: dict[str, Wish] = {}
        refused: dict[str, str] = {}
        for pod in list_pods(self._settings.pods.runc_roots):
            uid = pod.ref.uid
            try:
                wish = wish_of(pod.annotations, self._settings.heartbeat)
            except InvalidArgument as error:
                refused[uid] = str(error)
                if self._refused.get(uid) != refused[uid]:
                    log.warning("no heartbeat for a pod", pod=str(pod.ref), reason=refused[uid])
                continue
            if wish is not None and pod.containers:
                found[uid] = wish
        self._refused = refused
        self._figures.pods.set(len(found))
        self._figures.refused.set(len(refused))
        return found

    async def _take_or_put_off(self, beat: Beat) -> None:
        # It would wait until the pod is back, and all others behind it.
        if self._executor.watches(beat.uid):
            self._figures.skips.labels("restore").inc()
            self._schedule.put_off(beat, time.monotonic())
            return
        if (reason := await self._obstacle()) is not None:
            self._figures.skips.labels(reason).inc()
            # Once, until one is taken again: pressure lasts, and looks are many.
            if not self._held_up:
                log.info("heartbeats wait", reason=reason)
            self._held_up = True
            self._schedule.put_off(beat, time.monotonic())
            return
        self._held_up = False
        if await self._take(beat):
            self._schedule.succeeded(beat, time.monotonic())
        else:
            self._schedule.failed(beat, time.monotonic())

    async def _obstacle(self) -> str | None:
        if self._paused():
            return "drain"
        # Also an action of the same pod: it is among these.
        if self._executor.is_busy:
            return "busy"
        return await asyncio.to_thread(scarce, self._settings.heartbeat, self._store, self._proc)

    async def _take(self, beat: Beat) -> bool:
        """One heartbeat as an action like any other, and what it replaces."""
        spec = CheckpointSpec(PodRef(uid=beat.uid), kind=beat.wish.kind, reason="heartbeat")
        request = ActionRequest(str(uuid.uuid4()), spec)
        try:
            await self._executor.submit(request)
            action = await self._executor.wait(request.action_id)
        except ShuttingDown:
            raise
        except AgentError as error:
            log.warning("a heartbeat could not be recorded", reason=str(error))
            self._figures.beats.labels("error").inc()
            return False
        self._figures.beats.labels(action.state.value).inc()
        return await self._finish(beat, action)

    async def _finish(self, beat: Beat, action: Action) -> bool:
        outcome = action.event.checkpoint
        if action.event.failure is not None or outcome is None:
            return False
        state_dir = self._settings.state_dir
        deleted = await keep_newest(outcome.path, beat.wish.keep, self._executor, state_dir)
        self._figures.deleted.inc(deleted)
        return True
