"""Update rules: what of the log a recommender learns from, and what it may not forget."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from recloop.agents.policy import FitOptions, Policy
from recloop.agents.registry import facts_of, make_policy
from recloop.encoders.base.anchors import Anchor
from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.envs.logs.schema import Columns, LoggedBehavior
from recloop.envs.logs.sequences import Sequences
from recloop.envs.world.world import World
from recloop.experiments.comparison.policy_values import cold_world

RULES = {
    "frozen": "never updated",
    "full": "fitted anew on everything",
    "fine-tuned": "fitted on, on the newest window alone",
    "replay": "fitted on, on the newest window and a sample of older visits",
    "ewc": "fitted on, on the newest window, weights that mattered before held (Kirkpatrick et al. 2017)",
}
"""Update rule -> what it does."""

SERIES = "+series"
"""Behind a rule: the forecast of the items' own series takes the place of the levels that were learned."""


@dataclass(frozen=True)
class Learning:
    """How recommenders are fitted.

    Args:
        policy: a registered name of a supervised recommender.
        settings: of the policy, by name.
        passes: over the log where it is fitted anew; None for the policy's own.
        update_passes: over the window where it is fitted on.
        replay: older visits that `replay` draws, for each one of the window.
        ewc: strength of `ewc`, see `Anchor`.
        seed: of fits and samples.
    """

    policy: str = "gru4rec"
    settings: Mapping[str, Any] = field(default_factory=dict)
    passes: int | None = None
    update_passes: int = 5
    replay: float = 1.0
    ewc: float = 10.0
    seed: int = 0

    def anew(self, world: World) -> Policy:
        """Fitted on all that a world's users did."""
        return make_policy(self.policy, world, FitOptions(self.seed, self.passes, settings=self.settings))

    def options(self, day: int) -> FitOptions:
        """Of a fit that goes on."""
        return FitOptions(self.seed * 1000 + day, self.update_passes)


def checked_rules(rules: Sequence[str], policy: str) -> None:
    """Raise `RecloopError` for rules that nobody knows, or that the policy cannot follow."""
    known = (*RULES, *(rule + SERIES for rule in RULES))
    for rule in rules:
        if rule not in known:
            raise RecloopError(unknown_name("update rule", rule, known))
        if rule.removesuffix(SERIES) not in ("frozen", "full") and not facts_of(policy).continues:
            raise RecloopError(
                f"policy '{policy}' cannot be fitted on from where it stands, as rule '{rule}' does; take gru4rec or "
                "sasrec, or the rules frozen and full"
            )
    if len(set(rules)) < len(rules) or not rules:
        raise RecloopError(
            f"--rules {' '.join(rules)} must name one or more rules, each once; known: {', '.join(known)}"
        )


class Recommender:
    """One recommender, updated by one rule.

    Args:
        rule: of `RULES`.
        learning: how.
        first: the policy on its first day.
        learned: the world it was fitted in.

    Attributes:
        policy: as it stands.
        seconds: CPU seconds that its updates took.
    """

    def __init__(self, rule: str, learning: Learning, first: Policy, learned: World) -> None:
        self.rule, self.learning, self.policy = rule, learning, first
        self.seconds = 0.0
        self._anchor: Anchor | None = None
        if rule == "ewc":
            began = time.process_time()
            self._anchor = first.anchored(learned, learning.ewc)
            self.seconds += time.process_time() - began

    def update(self, world: World, older: Sequence[LoggedBehavior], window: Sequence[LoggedBehavior], day: int) -> str:
        """Learn at the end of a day; where the window is empty, nothing is updated.

        Args:
            world: with everything that happened so far.
            older: the logs before the window, a day each.
            window: the logs since the last update.
            day: that ended.

        Returns:
            What was not done and why; empty where all is well.
        """
        if self.rule == "frozen":
            return ""
        if not sum(taken(log) for log in window):
            return f"day {day}: nobody took anything in a window of {len(window)} day(s); {self.rule} is not updated"
        began = time.process_time()
        if self.rule == "full":
            self.policy = self.learning.anew(world)
        else:
            logs = [*replayed(older, window, self.learning, day), *window] if self.rule == "replay" else window
            learned = blank(world).extended(together(logs))
            self.policy = self.policy.continued(learned, self.learning.options(day), self._anchor)
            if self._anchor is not None:
                self._anchor = self.policy.anchored(learned, self.learning.ewc).with_older(self._anchor)
        self.seconds += time.process_time() - began
        return ""


def everybody_teaches(world: World) -> World:
    """The world with all users among those whom recommenders learn from: what a platform logs, it may learn from."""
    return replace(world, users=replace(world.users, part=torch.zeros_like(world.users.part)))


def blank(world: World) -> World:
    """The world in which nobody has done anything yet; encoders, items and users are there."""
    return replace(
        cold_world(world),
        sequences=Sequences.empty(len(world.users), len(world.catalogue), len(world.signals)),
        catalogue=replace(world.catalogue, popularity=torch.zeros_like(world.catalogue.popularity)),
    )


def together(logs: Sequence[LoggedBehavior]) -> LoggedBehavior:
    """Logs of one world as one."""
    rows = pd.concat([log.interactions for log in logs], ignore_index=True)
    return replace(logs[0], name=f"{logs[0].name} to {logs[-1].name}", interactions=rows)


def replayed(
    older: Sequence[LoggedBehavior], window: Sequence[LoggedBehavior], learning: Learning, day: int
) -> list[LoggedBehavior]:
    """A sample of older visits, drawn alike from all of them: a log, or none where there are none."""
    if not older:
        return []
    visit = [Columns.user, Columns.session]
    before = together(older)
    number = before.interactions.groupby(visit, sort=False).ngroup().to_numpy()
    wanted = sum(log.interactions.groupby(visit).ngroups for log in window) * learning.replay
    order = np.random.default_rng([learning.seed, day]).permutation(number.max() + 1)
    rows = before.interactions[np.isin(number, order[: round(wanted)])]
    return [replace(before, interactions=rows)] if len(rows) else []


def taken(log: LoggedBehavior) -> int:
    """How many items were taken in a log."""
    return int((log.interactions[log.consumption.name] == 1).sum())
