"""What off-policy evaluation reads of a log: who was shown what, with which probability, and what it earned."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from recloop.agents.learners.returns import PlaceRewards
from recloop.encoders.base.errors import LogError, PolicyError, unknown_name
from recloop.envs.interaction.item_columns import ItemColumns, ShownItems
from recloop.envs.interaction.observation import Observation
from recloop.envs.interaction.response import Response
from recloop.envs.interaction.reward import WeightedReward
from recloop.envs.interaction.reward_terms import parsed_reward
from recloop.envs.interaction.ruled_slates import RuledSlates
from recloop.envs.logs.compile import compile_sequences, ordered_rows
from recloop.envs.logs.schema import Columns, LoggedBehavior, Signal
from recloop.envs.logs.walk import ConsumedBefore, LoggedSteps, every_step
from recloop.envs.trajectories.sources import logged, some_steps
from recloop.envs.world.world import World

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_FEW = 50
"""A column of the users table with at most so many values describes users to the direct model."""


@dataclass(frozen=True)
class LoggedChoices:
    """Q logged slates of up to K places, in the order of users and time.

    Args:
        name: of the log.
        items: int64 (Q, K) item rows; N at empty places, which stand at the end.
        rewards: float64 (Q, K) what each place earned, in the reward's unit; 0 at empty places.
        propensity: float64 (Q, K) chance in (0, 1] with which the logging policy put the item there, given the places
            above; NaN at empty places. None where the log does not say.
        user: int64 (Q,) whose slate it is: intervals are over users.
        session: int64 (Q,) rising; the slates of one session stand together.
        observation: what a policy saw before each slate, Q lanes; always with `action_mask` (Q, N) and `first_place`,
            which is `first`.
        first: int64 (Q,) the place of each slate's first item: above 0 where a log has the places of a page as slates
            of their own.
        context: float64 (Q, C) what the direct model and the check of estimated propensities know of the moment.
        policies: who showed each slate, names (Q,); None where the log does not say.
        doubt: why the propensities should not be relied on; empty where nothing is known against them.

    Raises:
        LogError: no slates, an empty place above an item, a reward that is not finite, a propensity outside (0, 1] or
            missing in some places.
    """

    name: str
    items: Ints
    rewards: Floats
    propensity: Floats | None
    user: Ints
    session: Ints
    observation: Observation
    first: Ints
    context: Floats
    policies: npt.NDArray[np.str_] | None = None
    doubt: str = ""

    def __post_init__(self) -> None:
        if not len(self.items):
            raise LogError(f"{self.name}: 0 slates are left to evaluate on; at least 1 is needed, ask for a wider part")
        if (self.held[:, 1:] & ~self.held[:, :-1]).any():
            raise LogError(f"{self.name}: a slate has an empty place above an item; places must be filled from the top")
        wrong = self.held & ~np.isfinite(self.rewards)
        if wrong.any():
            raise LogError(
                f"{self.name}: the reward is {self.rewards[wrong][0]} at {wrong.sum()} of {self.held.sum()} places; "
                "it must be a finite number, mend the log or evaluate another signal (--reward)"
            )
        if self.propensity is None:
            return
        known = self.propensity[self.held]
        wrong = ~((known > 0) & (known <= 1 + 1e-6))
        if wrong.any():
            told = "missing" if np.isnan(known[wrong][0]) else f"{known[wrong][0]:g}"
            raise LogError(
                f"{self.name}: the propensity of {wrong.sum()} of {len(known)} places is {told}; what was shown had a "
                "probability in (0, 1]: mend the log, or have them estimated (--propensities estimated)"
            )

    @property
    def catalogue_size(self) -> int:
        """N."""
        return int(self.observation["action_mask"].shape[1])

    @property
    def held(self) -> Bools:
        """bool (Q, K): the place holds an item."""
        return self.items < self.catalogue_size

    def part(self, rows: Bools) -> "LoggedChoices":
        """Some of the slates (Q,)."""
        taken = torch.from_numpy(np.flatnonzero(rows))
        return replace(
            self,
            items=self.items[rows],
            rewards=self.rewards[rows],
            propensity=None if self.propensity is None else self.propensity[rows],
            user=self.user[rows],
            session=self.session[rows],
            observation={key: value[taken] for key, value in self.observation.items()},
            first=self.first[rows],
            context=self.context[rows],
            policies=None if self.policies is None else self.policies[rows],
        )

    def by(self, policy: str) -> "LoggedChoices":
        """The slates that one logging policy showed; `LogError` for one that the log does not name."""
        names = () if self.policies is None else sorted(set(self.policies))
        if self.policies is None or policy not in names:
            raise LogError(f"{self.name}: {unknown_name('logging policy', policy, names)}")
        return self.part(self.policies == policy)


def choices_of_log(log: LoggedBehavior, reward: Sequence[str] = (), segment: str | None = None) -> LoggedChoices:
    """From a log alone: policies see nothing but who may be shown, all items at any time.

    Args:
        log: with exposures.
        reward: terms `signal=weight`; default the consumption.
        segment: `COLUMN=VALUE` of the users table; default everybody.

    Raises:
        LogError: a log without exposures, a missing answer, an unknown or empty segment; see `LoggedChoices`.
    """
    if not log.has_exposures:
        raise LogError(f"{log.name} says what was consumed and not what was shown; off-policy evaluation needs a log "
                       "with exposures")  # fmt: skip
    log_sequences = compile_sequences(log)[0]
    steps = every_step(log_sequences, np.arange(log_sequences.users))
    slates, n = log_sequences.slates, log_sequences.catalogue_size
    assert slates is not None
    earned = parsed_reward(reward or (f"{log.consumption.name}=1",), log.signals, ItemColumns())
    if not isinstance(earned, WeightedReward) or earned.leaving or earned.diversity or earned.repeats:
        raise LogError(f"--reward {' '.join(reward)} needs a world; of a log alone name signals, such as "
                       f"{log.consumption.name}=1")  # fmt: skip
    _check_answers(log, steps, earned, n)
    slate = torch.from_numpy(steps.items)
    own = earned.by_place(torch.from_numpy(steps.answers).double(), log.signals, ShownItems(slate, ItemColumns()))
    first = _first_places(log)
    unknown = slates.propensity is None or not np.isfinite(slates.propensity).any()
    found = LoggedChoices(
        name=log.name,
        items=steps.items,
        rewards=own.double().numpy() * (steps.items < n),
        propensity=None if unknown else slates.propensity[steps.rows].astype(np.float64),  # type: ignore[index]
        user=steps.users,
        session=_sessions(steps.users, slates.session[steps.rows]),
        observation={
            "action_mask": torch.ones(1, n, dtype=torch.bool).expand(len(slate), -1),
            "first_place": torch.from_numpy(first),
        },
        first=first,
        context=described(log.users)[steps.users],
        policies=None if slates.policy is None else np.array(log_sequences.policies)[slates.policy[steps.rows]],
    )
    return found if segment is None else found.part(_in_segment(log, segment)[steps.users])


def choices_of_world(world: World, users: str = "evaluate") -> LoggedChoices:
    """From a world's log, as its policies would have observed it; the reward is the world's own.

    What belongs to the slate as a whole, as for leaving, is earned by its last place.

    Args:
        world: built from a log with exposures.
        users: a part of its users; policies learn from `train`.

    Raises:
        PolicyError: a world without exposures, or with rules of whole slates, under which nobody shows what they pick.
    """
    log, rows = world.sequences, world.users.rows(users).numpy()
    if log.slates is None:
        raise PolicyError(f"world '{world.name}' has a log without exposures; off-policy evaluation needs what was "
                          "shown")  # fmt: skip
    ruled = RuledSlates.of(world.rules, world.catalogue, world.signals, log.slates.items.shape[1], torch.device("cpu"))
    if ruled is not None and ruled.of_whole_slates:
        raise PolicyError(f"world '{world.name}' has rules of whole slates, so that nobody shows what they pick and no "
                          "probability is known; evaluate in a world without them")  # fmt: skip
    found, n = logged(world, users), len(world.catalogue)
    steps = every_step(log, rows)
    steps = some_steps(steps, steps.step >= log.first_scored[steps.users])
    moment = torch.from_numpy(np.arange(len(found.rewards)) + found.episode)
    seen = {key: torch.from_numpy(value)[moment] for key, value in found.observations.items()}
    mask = torch.ones(1, n, dtype=torch.bool).expand(len(moment), -1)
    if not world.consumes_twice:
        before = ConsumedBefore(log, rows)
        owner, moments = torch.from_numpy(steps.users), torch.from_numpy(steps.consumed_before)
        mask = ~before(owner, torch.arange(n), moments.unsqueeze(1))[:, 0]
    if ruled is not None:
        mask = mask & ruled.allowed
    slate, answers, given = (torch.from_numpy(each) for each in (found.slates, found.answers, found.given))
    own = PlaceRewards(world)(slate, Response(answers, given, torch.zeros(len(slate), dtype=torch.bool)))
    rewards, held = own.double().numpy(), found.slates < n
    rest = found.rewards.astype(np.float64) - rewards.sum(1)
    rewards[np.arange(len(rewards)), np.maximum(held.sum(1) - 1, 0)] += rest
    slates = log.slates
    return LoggedChoices(
        name=world.name,
        items=found.slates,
        rewards=rewards,
        propensity=None if np.isnan(found.propensity[held]).all() else found.propensity.astype(np.float64),
        user=found.users[found.episode],
        session=found.episode,
        observation={**seen, "action_mask": mask, "first_place": torch.zeros(len(slate), dtype=torch.int64)},
        first=np.zeros(len(slate), dtype=np.int64),
        context=np.concatenate([found.observations["state"], found.observations["context"]], 1)[moment].astype(float),
        policies=None if slates.policy is None else np.array(log.policies)[slates.policy[steps.rows]],
    )


def _check_answers(log: LoggedBehavior, steps: LoggedSteps, reward: WeightedReward, n: int) -> None:
    for place, signal in enumerate(log.signals):
        if reward.signals.get(signal.name) and not _optional(signal):
            lost = int(((steps.items < n) & ~steps.given[..., place]).sum())
            if lost:
                raise LogError(f"{log.name}: the reward '{signal.name}' is missing (NaN) at {lost} places; every place "
                               "needs one, mend the log or evaluate another signal (--reward)")  # fmt: skip


def _optional(signal: Signal) -> bool:
    return signal.given_on is not None


def _sessions(users: Ints, session: Ints) -> Ints:
    """Numbers of sessions over all users, rising."""
    new = np.ones(len(users), dtype=bool)
    new[1:] = (users[1:] != users[:-1]) | (session[1:] != session[:-1])
    return np.cumsum(new).astype(np.int64) - 1


def _first_places(log: LoggedBehavior) -> Ints:
    """The position of each slate's first row, (Q,); 0 where the log has none."""
    order, _, begins = ordered_rows(log)
    rows = order[np.unique(begins)]
    if Columns.position not in log.interactions:
        return np.zeros(len(rows), dtype=np.int64)
    return log.interactions[Columns.position].fillna(0).to_numpy(dtype=np.int64)[rows]


def described(users: pd.DataFrame) -> Floats:
    """One column a value of the users' features that have few values, (U, C)."""
    few = [name for name in users if 1 < users[name].astype(str).nunique() <= _FEW]
    found: Any = pd.get_dummies(users[few].astype(str)) if few else np.zeros((len(users), 0))
    return np.asarray(found, dtype=np.float64)


def _in_segment(log: LoggedBehavior, segment: str) -> Bools:
    """bool (U,): users of a segment `COLUMN=VALUE`."""
    name, equals, value = segment.partition("=")
    if not equals or name not in log.users:
        raise LogError(f"--segment {segment}: {unknown_name('column of users', name, map(str, log.users.columns))}; "
                       "write COLUMN=VALUE")  # fmt: skip
    inside = (log.users[name].astype(str) == value).to_numpy()
    if not inside.any():
        known = log.users[name].astype(str).value_counts().index[:5]
        raise LogError(f"--segment {segment} holds 0 of {len(inside)} users; values of {name} are such as "
                       f"{', '.join(known)}")  # fmt: skip
    return np.asarray(inside, dtype=bool)
