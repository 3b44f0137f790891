"""A log of your own, from a pandas table to a world that policies act in.

python examples/own_log.py
"""

import numpy as np
import pandas as pd

import recloop
from recloop.envs import Signal
from recloop.envs.build.encoders import EncoderConfig
from recloop.envs.build.pipeline import BuildConfig
from recloop.envs.logs.schema import Columns, LoggedBehavior, Times
from recloop.envs.users.fitted import FitConfig
from recloop.experiments import evaluate


def purchases(users: int = 120, items: int = 40, seed: int = 0) -> LoggedBehavior:
    """People who each buy mostly teas or mostly cups, a made-up log."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        likes = rng.permutation(np.arange(user % 2, items, 2))[:12]
        rows += [{"user": f"u{user}", "item": f"i{item}", "time": 3600.0 * step} for step, item in enumerate(likes)]
    table = pd.DataFrame({"title": [f"{'Cup' if i % 2 else 'Tea'} {i}" for i in range(items)]})
    table["text"] = ["a cup of china" if i % 2 else "green tea leaves" for i in range(items)]
    table.index = pd.Index([f"i{i}" for i in range(items)], name=Columns.item)
    return LoggedBehavior(
        name="shop",
        interactions=pd.DataFrame(rows).assign(purchase=1.0),
        users=pd.DataFrame(index=pd.Index([f"u{u}" for u in range(users)], name=Columns.user)),
        items=table,
        signals=(Signal("purchase"),),
        times=Times.behavioural,
    )


def main(passes: int = 6) -> dict[str, float]:
    """Build a small world and try two policies in front of its judge."""
    config = BuildConfig(
        slate_size=5, members=1, examine=False, encoder=EncoderConfig(text="hashed"), users=FitConfig(epochs=passes)
    )
    world = recloop.build_world(purchases(), config)
    print(*world.card.not_claimed, sep="\n")
    names = ("random", "greedy")
    return {n: float(evaluate(recloop.make_policy(n, world), world, "judge", episodes=50).value.mean()) for n in names}


if __name__ == "__main__":
    print(main())
