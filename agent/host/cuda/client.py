"""The agent's end of the driver: starts the helper when it is first needed, and replaces it after a
fault. A driver that is too old for it is asked through NVIDIA's program cuda-checkpoint.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from agent.config import cuda_libraries
from agent.errors import MissingTool
from agent.host.cuda.channel import Channel, HelperGone
from agent.host.cuda.model import CudaFailed, CudaState, Gpu, Inventory
from agent.host.cuda.program import Program, find_program

# Of CUDA 12.8: older drivers do not have the calls, and may have the program's (from 555 on).
_API_VERSION: Final = 12_080

# What the driver says of a process that has never called it. A process that is gone looks the same.
_NOT_CUDA: Final = ("CUDA_ERROR_NOT_INITIALIZED", "CUDA_ERROR_INVALID_VALUE")

# Seconds. Initialising takes 2.7 s where a GPU is asleep, and longer with eight of them.
_START_SECONDS: Final = 60.0
_ANSWER_SECONDS: Final = 10.0
# Of a lock beyond the time that the driver was given for it.
_MARGIN_SECONDS: Final = 5.0

# The driver's device nodes. Where there is none, there is nothing to ask.
_CONTROL_DEVICE: Final = Path("/dev/nvidiactl")


class Cuda:
    """NVIDIA's driver on this machine. For one event loop; :meth:`aclose` it."""

    def __init__(self) -> None:
        self._libraries = cuda_libraries()
        self._channel: Channel | None = None
        self._program: Program | None = None
        self._starting = asyncio.Lock()

    @property
    def is_there(self) -> bool:
        """Whether this machine has a driver at all. Looks at one file."""
        return _CONTROL_DEVICE.exists() or self._libraries is not None

    async def state(self, pid: int) -> CudaState | None:
        """Where a process is; None when it uses no GPU, or is gone.

        Raises:
            CudaFailed
        """
        try:
            found = str(await self._call("state", pid, _ANSWER_SECONDS))
        except CudaFailed as error:
            if error.result in _NOT_CUDA:
                return None
            raise
        try:
            return CudaState(found)
        except ValueError:
            raise CudaFailed("state", pid, f"a state unknown to the agent, {found!r}") from None

    async def lock(self, pid: int, seconds: float) -> None:
        """Stop a process's use of its GPUs; it runs as before when that takes too long.

        Raises:
            CudaFailed: CUDA_ERROR_NOT_READY when it took too long.
        """
        limit = seconds + _MARGIN_SECONDS
        await self._call("lock", pid, limit, timeout_ms=round(seconds * 1000))

    async def checkpoint(self, pid: int, seconds: float) -> None:
        """Bring what a locked process has on GPUs into its own memory.

        Raises:
            CudaFailed
        """
        await self._call("checkpoint", pid, seconds)

    async def restore(self, pid: int, seconds: float, devices: Mapping[str, str]) -> None:
        """Bring it back onto GPUs.

        Args:
            devices: UUIDs of all old ones and those that take their places; none: the same ones.

        Raises:
            CudaFailed
        """
        await self._call("restore", pid, seconds, devices=dict(devices))

    async def unlock(self, pid: int) -> None:
        """Let a locked process use its GPUs again. Raises CudaFailed."""
        await self._call("unlock", pid, _ANSWER_SECONDS)

    async def inventory(self) -> Inventory:
        """The GPUs of this machine; none where there is no driver.

        Raises:
            CudaFailed: there is one, and it does not answer.
        """
        if not self.is_there:
            return Inventory()
        async with self._starting:
            channel = await self._helper()
        try:
            found = await _ask(channel, "inventory", 0, _START_SECONDS, {})
        except CudaFailed:
            channel.retire()
            raise
        return Inventory(found["driver"], tuple(_gpu(each) for each in found["gpus"]))

    async def aclose(self) -> None:
        """End the helper."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def _call(self, call: str, pid: int, seconds: float, **arguments: object) -> object:
        asked = await self._start()
        if isinstance(asked, Program):
            return await asked.call(call, pid, seconds, arguments)
        return await _ask(asked, call, pid, seconds, {"pid": pid, **arguments})

    async def _start(self) -> Channel | Program:
        """Who is asked: a helper that has initialised the driver, or the program."""
        async with self._starting:
            if self._program is not None:
                return self._program
            channel = await self._helper()
            if channel.is_initialised:
                return channel
            try:
                version = await _ask(channel, "start", 0, _START_SECONDS, {})
                reason = f"the driver's CUDA is {version // 1000}.{version % 1000 // 10}"
                channel.is_initialised = version >= _API_VERSION
            except CudaFailed as error:
                reason = error.result
            if channel.is_initialised:
                return channel
            # The libraries remember why; a new helper sees a driver that comes later.
            channel.retire()
            self._program = find_program()
            if self._program is not None:
                return self._program
            reason += "; without cuda-checkpoint in PATH it has to be 12.8 (driver 570) or newer"
            raise CudaFailed("initialising the driver for a call", 0, reason)

    async def _helper(self) -> Channel:
        """The one that runs, or another one."""
        if self._channel is None or self._channel.is_faulty:
            self._channel = await self._open()
        return self._channel

    async def _open(self) -> Channel:
        try:
            return await Channel.open(self._libraries)
        except MissingTool as error:
            raise CudaFailed("starting the helper for a call", 0, str(error)) from error


async def _ask(
    channel: Channel, call: str, pid: int, seconds: float, arguments: dict[str, object]
) -> Any:  # noqa: ANN401 - JSON
    try:
        return await channel.ask(call, seconds, arguments)
    except HelperGone as error:
        raise CudaFailed(call, pid, str(error), answered=False) from None
    except TimeoutError:
        raise CudaFailed(call, pid, f"no answer within {seconds:g} s", answered=False) from None
    except ValueError as error:
        raise CudaFailed(call, pid, str(error)) from None


def _gpu(found: dict[str, Any]) -> Gpu:
    return Gpu(
        uuid=found["uuid"],
        model=found["model"],
        memory_bytes=found["memory_bytes"],
        mig=found["mig"],
        used_bytes={int(pid): used for pid, used in found["used_bytes"].items()},
        shared=tuple(found["shared"]),
        minor=found["minor"],
    )
