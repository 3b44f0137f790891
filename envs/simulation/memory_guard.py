"""Lanes that do not fit into memory: one line that says how many do, before they are made or as the memory runs out."""

from types import TracebackType

import torch

from recloop.encoders.base.errors import RecloopError

_LEAST, _AMPLE = 3, 4
"""What a step takes at its peak, in multiples of what is kept of a lane: never less, never more.

Measured on the CPU from 2,048 to 16,384 lanes: 3.2 to 3.7, of fitted users and of those who are written down.
"""


class MemoryGuard:
    """The memory for B lanes. `with room:` turns running out of it into a `RecloopError` that says how many to try.

    Args:
        batch: B.
        lane_bytes: of what is kept of a lane.
        device: where.

    Raises:
        RecloopError: lanes that need more than is free, by `lane_bytes` alone: nothing has been allocated by then.
    """

    def __init__(self, batch: int, lane_bytes: int, device: torch.device) -> None:
        self.batch, self.device = batch, device
        self._lane_bytes = lane_bytes
        free = free_bytes(device)
        if batch * _LEAST * lane_bytes > free:
            raise self._too_many(free, int(free // (_AMPLE * lane_bytes)))

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and is_out_of_memory(error):
            raise self._too_many(free_bytes(self.device), self.batch // 2) from error

    def _too_many(self, free: float, fits: int) -> RecloopError:
        need = f"at least {self.batch * _LEAST * self._lane_bytes / 2**30:,.1f} GiB"
        return RecloopError(
            f"batch={self.batch:,} lanes need {need} of {self.device} memory, {free / 2**30:,.1f} GiB are free; "
            f"choose {max(fits, 1):,} or fewer"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch, or Python, could not allocate what was asked for."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def free_bytes(device: torch.device | str) -> float:
    """Free memory of a device, what torch has set aside included; infinite where the system does not say."""
    if torch.device(device).type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + held)
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return float("inf")
