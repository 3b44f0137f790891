"""Slates as people hand them in: what is wrong with one, in words."""

from typing import Any

import torch
from torch import Tensor

from recloop.encoders.base.plug_ins import returned

WHOLE_NUMBERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
"""Types of item rows and positions; int64 is what they become. Torch hardly computes in larger unsigned types."""


def slate_fault(slate: Any, shape: tuple[int, ...]) -> str | None:
    """What a slate is instead of whole numbers (B, K); None where nothing is wrong with it.

    >>> slate_fault(torch.ones(2, 3, dtype=torch.bool), (2, 3))
    'bool (2, 3)'
    """
    if isinstance(slate, Tensor) and slate.dtype in WHOLE_NUMBERS and slate.shape == shape:
        return None
    return returned(slate)
