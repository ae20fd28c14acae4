"""What became of a pod's containers, for when there is no agent to ask and for when it is back.

<restores>/policy                        ``cold`` or ``fail``: what to do when there is none
<restores>/<sandbox>/<container>.json    of a container that asked for a checkpoint
"""

from __future__ import annotations

import json
import os
import time

from agent.host.wrapper.facts import Facts

# Not typing's, which takes 5 ms to import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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

        Others of the pod have come back, and run on, and this one has not yet; or it was configured
        so.
        """
        records = self._records()
        if self.is_restart():
            return False
        restored = (each for each in records.values() if each.get("state") == "restored")
        return not all(each.get("again") for each in restored) or self._is_strict()

    def is_restart(self) -> bool:
        """Whether this one has run already."""
        return self._records().get(self._name, {}).get("state") in _SETTLED

    def note_cold(self, container: str, reason: str) -> None:
        """Write down that it is started cold. Raises OSError.

        Of a restart that much: what became of the first start is what counts.
        """
        record = self._records().get(self._name, {})
        if record.get("state") == "cold":
            return
        if record.get("state") == "restored":
            record = {**record, "reason": f"a restart, as {container}: {reason}", "again": True}
        else:
            record = {"state": "cold", "container_id": container, "reason": reason}
            record |= {"uid": self._uid, "at": time.time()}
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        # Renamed, so that nobody reads half of it.
        new = f"{self._directory}/.{self._name}.{os.getpid()}"
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(record, file)
        os.rename(new, f"{self._directory}/{self._name}.json")

    def _records(self) -> dict[str, dict[str, Any]]:
        """What is written down of each, by its name."""
        try:
            names = os.listdir(self._directory)
        except OSError:
            return {}
        names = [name.removesuffix(".json") for name in names if name.endswith(".json")]
        read = {name: self._read(name) for name in names}
        return {name: record for name, record in read.items() if isinstance(record, dict)}

    def _read(self, name: str) -> object:
        try:
            with open(f"{self._directory}/{name}.json") as file:
                return json.load(file)
        except (OSError, ValueError, RecursionError):
            return None

    def _is_strict(self) -> bool:
        try:
            with open(self._policy) as file:
                return file.read().strip() == "fail"
        except OSError:
            return False
