"""What logged steps brought: the rewards that came after each, discounted."""

import numpy as np
import numpy.typing as npt


def returns_after(
    reward: npt.NDArray[np.floating], number: npt.NDArray[np.int64], gamma: float
) -> npt.NDArray[np.float64]:
    """The discounted rewards of the steps after each one in its episode, (Q,), in the unit of the step before them.

    Args:
        reward: (Q,) of the steps; those of an episode stand together, in order.
        number: int64 (Q,) of each step in its episode, from 0.
        gamma: discount.

    >>> returns_after(np.array([1.0, 2.0, 4.0, 8.0]), np.array([0, 1, 2, 0]), 0.5).tolist()
    [2.0, 2.0, 0.0, 0.0]
    """
    after = np.zeros(len(reward))
    order = np.argsort(number, kind="stable")
    ends = np.searchsorted(number[order], np.arange(number.max(initial=-1) + 2))
    for step in range(len(ends) - 2, 0, -1):
        rows = order[ends[step] : ends[step + 1]]
        after[rows - 1] = gamma * (reward[rows] + after[rows])
    return after
