"""What is wrong with a step, found out without making a GPU wait for the host."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from recloop.encoders.base.errors import RecloopError


@dataclass(frozen=True)
class _PendingCheck:
    """A question on its way to the host: `found` holds the answer once `arrived` says so."""

    found: Tensor
    arrived: torch.cuda.Event
    error: Callable[[], RecloopError]


class DeferredChecks:
    """Raises what is found wrong: at once on the CPU; on a GPU at a later look, when the answer has come by itself.

    Until then a GPU computes on, so what is asked about must do no harm there.
    """

    def __init__(self, device: torch.device) -> None:
        self._later = device.type == "cuda"
        self._asked: deque[_PendingCheck] = deque()

    def look(self, wrong: Tensor, error: Callable[[], RecloopError]) -> None:
        """Raise `error()` if `wrong`, one bool, is set; `error` may look at tensors.

        Raises:
            RecloopError: of this look, or of an earlier one on a GPU.
        """
        if not self._later:
            if wrong:
                raise error()
            return
        while self._asked and self._asked[0].arrived.query():  # type: ignore[no-untyped-call]
            asked = self._asked.popleft()
            if asked.found:
                self._asked.clear()
                raise asked.error()
        found = torch.empty((), dtype=torch.bool, pin_memory=True)
        found.copy_(wrong, non_blocking=True)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record()
        self._asked.append(_PendingCheck(found, arrived, error))
