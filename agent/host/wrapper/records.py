"""What became of a pod's containers, for when there is no agent to ask and for when it is back.

<restores>/policy                        ``cold`` or ``fail``: what to do when there is none
<restores>/<sandbox>/<container>.json    of a container that asked for a checkpoint
"""

from __future__ import annotations

import json
import os
import time

from agent.host.wrapper.facts import Facts

# Of a container that has run already. One that failed, or whose agent was killed in the middle, has
# not.
_SETTLED = ("restored", "cold")


class Records:
    """Those of the pod that one container is in."""

    def __init__(self, directory: str, facts: Facts) -> None:
        self._policy = f"{directory}/policy"
        self._directory, self._name = f"{directory}/{facts.sandbox}", facts.name
        self._uid = facts.uid

    def forbid_cold(self) -> bool:
        """Whether a cold start would be worse than none.

        Others of the pod have come back, and this one has not yet; or it was configured so.
        """
        states = self._states()
        if states.get(self._name) in _SETTLED:
            return False  # a restart
        return "restored" in states.values() or self._is_strict()

    def note_cold(self, container: str, reason: str) -> None:
        """Write down that it is started cold. Raises OSError.

        Not of a restart: what became of the first start is what counts.
        """
        if self._states().get(self._name) in _SETTLED:
            return
        record = {"state": "cold", "container_id": container, "reason": reason, "uid": self._uid}
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        # Renamed, so that nobody reads half of it.
        new = f"{self._directory}/.{self._name}.{os.getpid()}"
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump({**record, "at": time.time()}, file)
        os.rename(new, f"{self._directory}/{self._name}.json")

    def _states(self) -> dict[str, str]:
        found = {}
        try:
            names = os.listdir(self._directory)
        except OSError:
            return {}
        for name in names:
            if name.endswith(".json"):
                found[name.removesuffix(".json")] = self._state(name)
        return found

    def _state(self, name: str) -> str:
        try:
            with open(f"{self._directory}/{name}") as file:
                return str(json.load(file)["state"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return ""

    def _is_strict(self) -> bool:
        try:
            with open(self._policy) as file:
                return file.read().strip() == "fail"
        except OSError:
            return False
