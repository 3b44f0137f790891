"""A policy taken to another world: ranking and return by how many of that world's users it learned from.

Every figure is a value a user of the target world, of whom no policy has learned. `transferred` goes on from what was
learned in the first world, `from scratch` from the same model's starting weights, on the same users; with 0 users
these are `untrained`, and show what is like the history in the language model's space. `popularity` counts the same
users, `popularity of all` all train users.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from recloop.agents.policy import FitOptions, Policy
from recloop.agents.registry import make_policy
from recloop.agents.transfer.contract import TextAlone
from recloop.agents.transfer.transferred import few_users, transferred
from recloop.encoders.base.errors import PolicyError
from recloop.envs.users.contract import UserSimulator
from recloop.envs.world.world import World
from recloop.experiments.comparison.evaluate import Evaluator, Floats
from recloop.experiments.comparison.intervals import by_user
from recloop.experiments.policy_table import Row
from recloop.experiments.ranking.evaluator import interval, rank_all
from recloop.experiments.ranking.questions import RankingTask

MOVED, ANEW, STARTING = "transferred", "from scratch", "untrained"
COUNTED, ALL = "popularity", "popularity of all"
METRICS = ("ndcg", "recall")


@dataclass(frozen=True)
class Destination:
    """Where a transferred policy is measured.

    Args:
        world: the target.
        task: what its evaluate users are asked.
        k: length of the lists.
        users: numbers of train users to learn from; None for all.
        simulator: who answers in the loop; None leaves the loop out.
        episodes: in the loop, a policy.
    """

    world: World
    task: RankingTask
    k: int
    users: tuple[int | None, ...]
    simulator: str | UserSimulator | None = None
    episodes: int = 0

    def policies(self, source: Policy, options: FitOptions) -> Iterator[tuple[int | None, str, Policy]]:
        """Who is measured, of one seed, by how many users it learned from.

        Args:
            source: in its own world.
            options: seed, budget and settings of whatever is fitted.
        """
        if not isinstance(source, TextAlone):
            transferred(source, self.world)  # says why not
        assert isinstance(source, TextAlone)
        start = source.afresh(options.seed)
        assert isinstance(start, Policy)
        start.serving, start.name = source.serving, source.name
        for users in self.users:
            yield users, MOVED, transferred(source, self.world, options, users)
            yield users, ANEW if users != 0 else STARTING, transferred(start, self.world, options, users)
            name, met = ("random", self.world) if users == 0 else (COUNTED, few_users(self.world, users, options.seed))
            yield users, name, make_policy(name, met, replace(options, steps=None, settings={}))
        yield 0, ALL, make_policy("popularity", self.world)

    def values(self, sources: Sequence[Policy], options: FitOptions) -> dict[tuple[str, int | None, str], Floats]:
        """Each user's figures, the mean over seeds, by (metric, users, policy).

        Args:
            sources: one a seed; the seeds count from that of `options`.
            options: see `policies`.
        """
        found: dict[tuple[str, int | None, str], list[Floats]] = {}
        for seed, source in enumerate(sources, options.seed):
            made = list(self.policies(source, replace(options, seed=seed)))
            lists = rank_all([(policy, seed) for *_, policy in made], self.world, self.task, self.k)
            for (users, name, _), mine in zip(made, lists, strict=True):
                figures = mine.by_user(self.k)
                for metric in METRICS:
                    found.setdefault((f"{metric}@{self.k}", users, name), []).append(figures[metric])
            if self.simulator is not None:
                lanes = Evaluator(self.world, self.simulator, episodes=self.episodes, seed=seed)
                for users, name, policy in made:
                    met = lanes.run(policy, seed)
                    found.setdefault(("return", users, name), []).append(by_user(met.value, met.users))
        return {key: np.asarray(np.mean(values, axis=0)) for key, values in found.items()}


def rows_of(values: dict[tuple[str, int | None, str], Floats]) -> list[Row]:
    """Figures with intervals over users, and the differences of `transferred` to the others, in pairs."""
    rows: list[Row] = []
    for (metric, users, name), mine in values.items():
        rows.append((f"{metric}, {told(users)}", name, interval(mine)))
        if name == MOVED:
            for other in (STARTING, ANEW, COUNTED, ALL):
                against = values.get((metric, 0 if other == ALL else users, other))
                if against is not None:
                    rows.append((f"{metric}, {told(users)}, to {other}", name, interval(mine - against)))
    return rows


def told(users: int | None) -> str:
    """How many users were learned from, in words."""
    return "all users" if users is None else f"{users} users"


def users_of(said: Sequence[str]) -> tuple[int | None, ...]:
    """Numbers of users as they are typed, `all` for None.

    >>> users_of(("0", "20", "all"))
    (0, 20, None)
    """
    wrong = [word for word in said if word != "all" and not word.isdecimal()]
    if wrong or not said:
        raise PolicyError(f"--users {' '.join(wrong) or 'is empty'}; give numbers of train users from 0, or all")
    return tuple(None if word == "all" else int(word) for word in said)
