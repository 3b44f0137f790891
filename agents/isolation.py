"""Global random generators left as they were: Stable-Baselines3 seeds and uses them, and nobody else may notice."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def isolated_randomness(seed: int) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's global generators for a while, then put back their states."""
    python, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002 - SB3 uses the legacy generator
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            torch.manual_seed(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)  # noqa: NPY002
