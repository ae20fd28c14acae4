"""The process that has the driver's libraries loaded: those of the directory that it is given, or
those that the loader finds. It stays up, because initialising them takes seconds where no GPU is in
persistence mode.

Each line of its standard input is a call as a JSON object, ``{"id", "call", ...}``; each line of
its output the answer to one, ``{"id", "value"}`` or ``{"id", "error"}``, in the order in which they
end. Calls run side by side, each in a thread: a hung one holds up nobody.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
import threading
from typing import Any

_output = threading.Lock()


def main() -> None:
    """Serve until the input ends."""
    # Nothing that a library prints may come between two answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if sys.argv[1:]:
        _load_from(sys.argv[1])
    for line in sys.stdin:
        arguments = json.loads(line)
        threading.Thread(target=_serve, args=(answers, arguments), daemon=True).start()
    # Without waiting for calls that hang.
    os._exit(0)


def _load_from(directory: str) -> None:
    """Load the driver's libraries, which bindings then find by their names.

    LD_LIBRARY_PATH would not do: where the agent brings its own C library, the loader ignores it.
    """
    for name in ("libcuda.so.1", "libnvidia-ml.so.1"):
        # What is missing is told by the call that needs it.
        with contextlib.suppress(OSError):
            ctypes.CDLL(os.path.join(directory, name), mode=ctypes.RTLD_GLOBAL)


def _serve(answers: Any, arguments: dict[str, Any]) -> None:  # noqa: ANN401 - a text file
    answer: dict[str, Any] = {"id": arguments.pop("id")}
    try:
        answer["value"] = _call(**arguments)
    except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits for an answer
        answer["error"] = str(error) or type(error).__name__
    with _output:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _call(call: str, **arguments: Any) -> Any:  # noqa: ANN401 - JSON in, JSON out
    # Here, so that a missing library is the answer to a call and not the end of the process.
    from agent.host.cuda import calls

    return getattr(calls, call)(**arguments)


if __name__ == "__main__":
    main()
