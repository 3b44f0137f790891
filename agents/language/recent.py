"""What was made lately, by what it was made from: a lane that did not change costs nothing."""

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor


class Recent:
    """The newest rows that were made, so many at most, each under the numbers it was made from.

    Args:
        most: rows kept.

    Attributes:
        made: rows that had to be made.
    """

    def __init__(self, most: int = 16384) -> None:
        self.most, self.made = most, 0
        self._rows: OrderedDict[bytes, Tensor] = OrderedDict()

    def rows(self, keys: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor:
        """A row for each of the keys (B, w), made where it is not there: float32 (B, ...) on the keys' device.

        Args:
            keys: int64; equal keys stand for equal rows.
            make: the places (n,) of keys -> their rows (n, ...).
        """
        names = [row.tobytes() for row in keys.cpu().numpy()]
        missing = {name: place for place, name in enumerate(names) if name not in self._rows}
        if missing:
            fresh = make(torch.tensor(list(missing.values()), device=keys.device)).cpu()
            self._rows.update(zip(missing, fresh.unbind(), strict=True))
            self.made += len(missing)
        for name in names:
            self._rows.move_to_end(name)
        rows = torch.stack([self._rows[name] for name in names])
        while len(self._rows) > self.most:
            self._rows.popitem(last=False)
        return rows.to(keys.device)
