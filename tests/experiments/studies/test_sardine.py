"""SARDINE's users on batches behave as the package's own environment does, slate by slate."""

from collections import deque
from typing import Any

import numpy as np
import pytest
import torch

from recloop.experiments.studies.sardine.users import VARIANTS, SardineUsers, sardine_tastes

pytest.importorskip("sardine")


def theirs(name: str, seed: int) -> Any:
    """Their environment, with nothing shown yet."""
    import gymnasium
    import sardine  # noqa: F401 - registers them

    env: Any = gymnasium.make(name, disable_env_checker=True).unwrapped
    env.reset(seed=seed)
    env.t = 0
    env.clicked_items, env.clicked_item_topics, env.clicked_step = (deque(maxlen=10) for _ in range(3))
    env.bored, env.bored_timeout = np.zeros(10, dtype=bool), 5 * np.ones(10, dtype=int)
    env.cur_user_embedd = env.user_embedd.copy()
    return env


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("sardine/SlateTopK-Bored-v0", "sardine-bored"),
        ("sardine/SlateTopK-Uncertain-v0", "sardine-uncertain"),
    ],
)
def test_chances_are_those_of_the_package(name: str, variant: str) -> None:
    rng, worst, bored = np.random.default_rng(0), 0.0, 0
    for seed in range(6):
        env = theirs(name, seed)
        users = SardineUsers(torch.zeros(1, 10), torch.from_numpy(env.item_embedd).float(), VARIANTS[variant])
        state = users.fresh(torch.from_numpy(env.user_embedd).float().unsqueeze(0))
        for _ in range(25):
            scores = env.item_embedd @ env.cur_user_embedd
            liked = rng.random() < 0.7
            slate = rng.choice(np.argsort(-scores)[:30] if liked else 1000, 10, replace=False)
            relevance = 1 / (1 + np.exp(-(scores / env.max_score - env.offset) * env.slope))
            shown = torch.from_numpy(slate).unsqueeze(0)
            nothing: Any = None
            found = users.expected(state, nothing, shown).mean[0, :, 0].numpy()
            worst = max(worst, float(np.abs(found - relevance[slate] * env.propensities).max()))
            bored += int(env.bored.any())
            clicks = torch.from_numpy(env.step(slate)[4]["clicks"]).float()
            state = users.observe(state, shown, clicks.view(1, 10, 1))
    assert worst < 1e-5
    assert bored > 10  # it was put to the test


def test_tastes_hold_three_to_five_topics() -> None:
    tastes = sardine_tastes(200, 10, torch.Generator().manual_seed(0))
    assert set((tastes > 0).sum(1).tolist()) == {3, 4, 5}
    assert torch.allclose(tastes.norm(dim=1), torch.ones(200))
