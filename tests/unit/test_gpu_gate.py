"""What of GPUs can be checkpointed, and onto which ones it comes back."""

from __future__ import annotations

import dataclasses

import pytest

from agent.gpu import GpuProcess, check_before_dump, check_driver, device_map
from agent.gpu.gate import Impossible
from agent.host.cuda import CudaState, Gpu, Inventory
from agent.manifest import Gpu as Recorded

GIB = 1 << 30
USED = {10: 4 * GIB, 11: 2 * GIB, 99: 30 * GIB}
H100 = Gpu("GPU-1", "H100", 80 * GIB, used_bytes=USED, minor=0)
OTHER = Gpu("GPU-2", "H100", 80 * GIB, used_bytes={99: GIB}, minor=1)
A100 = Gpu("GPU-3", "A100", 80 * GIB, used_bytes={}, minor=2)
HERE = Inventory("580.65.06", (H100, OTHER, A100))
RANKS = [GpuProcess(pid, 1, CudaState.RUNNING) for pid in (10, 11)]


def test_a_driver_of_another_version() -> None:
    check_driver("580.65.06", HERE)
    with pytest.raises(Impossible, match=r"driver 570\.1, .*; this machine has 580\.65\.06"):
        check_driver("570.1", HERE)


def test_what_fits_is_let_through() -> None:
    assert check_before_dump(HERE, RANKS, 6 * GIB) == 6 * GIB


def test_one_that_was_forked_from_a_rank() -> None:
    with pytest.raises(Impossible, match=r"process 12 has a GPU mapped .*forked"):
        check_before_dump(HERE, [*RANKS, GpuProcess(12, 1, None)], 6 * GIB)


def test_its_memory_has_to_hold_what_is_on_the_gpu() -> None:
    with pytest.raises(Impossible, match=r"6144 MiB on its GPUs.* 6143 MiB left"):
        check_before_dump(HERE, RANKS, 6 * GIB - 1)


@pytest.mark.parametrize("state", [state for state in CudaState if state is not CudaState.RUNNING])
def test_what_somebody_else_is_at(state: CudaState) -> None:
    with pytest.raises(Impossible, match=f"process 10 is {state} for the driver already"):
        check_before_dump(HERE, [GpuProcess(10, 1, state)], 6 * GIB)


def test_parted_and_shared_gpus() -> None:
    parted = Inventory("580", (dataclasses.replace(H100, mig=True),))
    with pytest.raises(Impossible, match="MIG"):
        check_before_dump(parted, RANKS, 99 * GIB)
    shared = Inventory("580", (dataclasses.replace(H100, shared=(11,)),))
    with pytest.raises(Impossible, match="MPS"):
        check_before_dump(shared, RANKS, 99 * GIB)
    # Somebody else's are nobody's business.
    elsewhere = dataclasses.replace(A100, mig=True, shared=(99,))
    check_before_dump(Inventory("580", (H100, elsewhere)), RANKS, 6 * GIB)


def _old(number: int, *, used: bool, model: str = "H100", memory: int = 80 * GIB) -> Recorded:
    return Recorded.model_construct(
        uuid=f"GPU-{number}", model=model, memory_bytes=memory, used=used
    )


def test_the_same_gpus_need_no_map() -> None:
    assert device_map([_old(1, used=True), _old(7, used=False)], HERE) == {}


def test_every_old_gpu_is_named_and_the_least_used_are_taken() -> None:
    found = device_map([_old(7, used=False), _old(8, used=True)], HERE)
    assert found == {"GPU-8": "GPU-2", "GPU-7": "GPU-3"}
    both = device_map([_old(8, used=True), _old(9, used=True)], HERE)
    assert both == {"GPU-8": "GPU-2", "GPU-9": "GPU-1"}


def test_one_that_is_still_there_stays_where_it_is() -> None:
    found = device_map([_old(8, used=True), _old(2, used=True)], HERE)
    assert found["GPU-2"] == "GPU-2"


@pytest.mark.parametrize(
    ("recorded", "complaint"),
    [
        ([_old(8, used=True, model="B200")], r"were 1 x B200; this machine has 1 x A100, 2 x H100"),
        ([_old(8, used=True, memory=81 * GIB)], "1 x H100"),
        ([_old(number, used=True) for number in (7, 8, 9)], "3 x H100"),
    ],
)
def test_other_gpus_will_not_do(recorded: list[Recorded], complaint: str) -> None:
    with pytest.raises(Impossible, match=complaint):
        device_map(recorded, HERE)
    with pytest.raises(Impossible, match="no GPU"):
        device_map(recorded, Inventory())


def test_a_container_gets_none_but_those_that_it_was_given() -> None:
    """Its own is here still, and somebody else's by now."""
    mine = _old(1, used=True)
    assert device_map([mine], HERE, {0, 1}) == {}
    assert device_map([mine], HERE, {1}) == {"GPU-1": "GPU-2"}
    with pytest.raises(Impossible, match="were 1 x H100; it was given 1 x A100"):
        device_map([mine], HERE, {2})
    with pytest.raises(Impossible, match="were 1 x H100; it was given no GPU"):
        device_map([mine], HERE, {7})


def test_an_old_driver_brings_nothing_onto_another_gpu() -> None:
    old = dataclasses.replace(HERE, driver="570.86.10")
    assert device_map([_old(1, used=True)], old) == {}
    with pytest.raises(Impossible, match=r"driver 570\.86\.10 cannot do; 580"):
        device_map([_old(8, used=True)], old)


def test_where_nobody_knows_which_were_used_all_count() -> None:
    assert device_map([_old(1, used=False), _old(2, used=False)], HERE, {2}) == {}
    found = device_map([_old(1, used=False), _old(8, used=False)], HERE)
    assert found == {"GPU-1": "GPU-1", "GPU-8": "GPU-2"}
    with pytest.raises(Impossible, match="3 x H100"):
        device_map([_old(number, used=False) for number in (1, 2, 8)], HERE)
    with pytest.raises(Impossible, match="no GPU"):
        device_map([], Inventory())
