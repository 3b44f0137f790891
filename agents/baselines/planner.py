"""The planner that knows the truth: the best there is in a truth world, and never a competitor."""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from recloop.agents.facts import Trains
from recloop.agents.policy import Carry, FitOptions, Policy
from recloop.agents.slates import best_slate
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.item_columns import ShownItems
from recloop.envs.interaction.observation import Observation
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.reward import WeightedReward
from recloop.envs.simulation.core import Core
from recloop.envs.truth.boredom import BoredomUsers
from recloop.envs.truth.boredom_optimum import Optimum, best_slates, boredom_number, solve
from recloop.envs.truth.matrix import MatrixUsers
from recloop.envs.truth.tastes import TasteUsers
from recloop.envs.users.contract import UserSimulator
from recloop.envs.users.speaking.users import SpeakingUsers
from recloop.envs.world.world import World

WEIGHTS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""What the future may weigh, tried from the least."""
_LANES = 128
_SEED = 0x91A7


@dataclass
class Lookahead:
    """Lookahead whose weight of the future was found by rolling the truth itself out.

    The weight is the one of `WEIGHTS` that earned most over 128 episodes of the world's users, with seeds of its own.
    Users whom nothing shown ever changes need none: there, greedy on the truth is optimal (clicks, cascade, matrix).

    Args:
        weight: of the future.
        value: mean return of the trial episodes under each weight tried.
    """

    weight: float
    value: dict[float, float]

    @classmethod
    def of(cls, core: Core, k: int) -> "Lookahead":
        """Tuned for the users, slate size, reward and limits of a core; the core itself is not stepped."""
        if not looks_ahead(core.simulator):
            return cls(0.0, {})
        value = {weight: _trial(core, k, weight) for weight in WEIGHTS}
        return cls(max(value, key=lambda weight: value[weight]), value)


class PlannerPolicy(Policy):
    """Plans from the users' true state.

    In a world of `BoredomUsers` it plays the computed optimum: see `recloop.envs.truth.boredom_optimum` for why it is
    exact; the programme is solved once for every user that it meets in a core. In the other truth worlds it looks
    ahead (`recloop.agents.baselines.planner`): optimal where nothing shown changes the users, a good plan and no
    bound where it does. So it does under rules, whose optimum is not known. Among users who speak it knows the wish and
    plays what earns most in this slate.

    Args:
        farsighted: False plays what earns most in this slate alone: greedy on the truth.

    Raises:
        PolicyError: in a world whose users are not written down, and for users other than the truth.
    """

    name = "planner"
    trains: ClassVar[Trains] = "no"
    deterministic: ClassVar[bool] = True
    privileged: ClassVar[bool] = True

    def __init__(self, farsighted: bool = True) -> None:
        self.farsighted = farsighted
        self._solved: dict[int, tuple[Core, Optimum]] = {}
        self._tuned: dict[tuple[int, int], tuple[UserSimulator, Lookahead]] = {}

    @classmethod
    def fit(cls, world: World, options: FitOptions) -> Self:
        """Nothing to learn; the world must be a truth."""
        if "truth" not in world.simulators:
            raise PolicyError(
                f"the planner needs a truth world; in '{world.name}' users are learned from a log and what is best is "
                "not known. Leave 'planner' out of --policies"
            )
        return cls()

    def act(self, observation: Observation, carry: Carry, k: int, draw: Draw) -> tuple[Tensor, Carry]:
        """Raises PolicyError: an observation does not hold what the planner reads; use `act_on_state`."""
        raise PolicyError("the planner reads the users' true state, not observations; call act_on_state(core, k)")

    def act_on_state(self, core: Core, k: int) -> Tensor:
        """The best slates for every lane of a core whose simulator is the truth: int64 (B, k)."""
        if not self.farsighted or isinstance(core.simulator, SpeakingUsers):
            return lookahead_slates(core, k, 0.0)
        if not isinstance(core.simulator, BoredomUsers) or core.ruled is not None:
            return lookahead_slates(core, k, self.lookahead(core, k).weight)
        users = _truth(core)
        plan, step = self._plan(core, k), core.past.step
        lanes = torch.arange(core.batch, device=core.device)
        choice = plan.best[lanes, step, boredom_number(users, core.state.boredom)].long()
        return best_slates(users, core.state, plan.compositions[choice], _reward(core).signals)

    def optimum(self, core: Core, k: int) -> Tensor:
        """Expected return of every lane's episode from its first step under the best policy, (B,)."""
        return self._plan(core, k).value

    def lookahead(self, core: Core, k: int) -> Lookahead:
        """How the future is weighed for the users of a core; tuned when they are first met.

        Raises:
            PolicyError: for users who are not written down.
        """
        users = core.simulator
        if not isinstance(users, TasteUsers | MatrixUsers):
            raise PolicyError(
                f"the planner plans for the users of truth worlds, not for {type(users).__name__}; run it with "
                "simulator 'truth'"
            )
        met = self._tuned.get((k, core.max_steps))
        if met is None or met[0] is not users:
            met = (users, Lookahead.of(core, k))
            self._tuned[k, core.max_steps] = met
        return met[1]

    def _plan(self, core: Core, k: int) -> Optimum:
        """The optimum for the users in a core's lanes; solved for those that it has not met before."""
        met = self._solved.get(k)
        known = met[1] if met is not None and met[0] is core else None
        rows = torch.tensor(sorted(set(core.users.tolist())), device=core.device)
        new = rows if known is None else rows[~torch.isin(rows, known.users)]
        if known is None or len(new):
            plan = solve(_truth(core), new, k, core.max_steps, _reward(core))
            known = plan if known is None else _joined(known, plan)
            self._solved[k] = (core, known)
        order = known.users.argsort()
        place = order[torch.searchsorted(known.users[order], core.users)]  # (B,)
        return Optimum(core.users, known.value[place], known.best[place], known.compositions)


def _joined(one: Optimum, two: Optimum) -> Optimum:
    """The optima of two sets of users under one slate size, time limit and reward."""
    return Optimum(
        torch.cat([one.users, two.users]),
        torch.cat([one.value, two.value]),
        torch.cat([one.best, two.best]),
        one.compositions,
    )


def _truth(core: Core) -> BoredomUsers:
    if not isinstance(core.simulator, BoredomUsers) or core.sessions != 1:
        raise PolicyError(
            f"the planner plans for BoredomUsers in episodes of one session, not for {type(core.simulator).__name__} "
            f"in {core.sessions}"
        )
    return core.simulator


def _reward(core: Core) -> WeightedReward:
    if not isinstance(core.reward, WeightedReward):
        raise PolicyError("the planner plans for a WeightedReward; a callable reward has no known optimum")
    return core.reward


def lookahead_slates(core: Core, k: int, weight: float) -> Tensor:
    """The k best items for every lane by true state: int64 (B, k).

    An item's score is its expected reward where it is looked at, plus `weight` x the share of the episode that is
    left x its promise (`TasteUsers.promise`: the expected move of satisfaction, taste or mood). The best goes to the
    top, where it is looked at most. With weight 0 this is greedy on the truth.

    Raises:
        PolicyError: for users without `expected` and `utility`, and for rewards that are not sums over signals.
    """
    users, state, past = core.simulator, core.state, core.past
    items = torch.arange(core.empty, device=core.device).expand(core.batch, -1)  # (B, N)
    wanted = users.utility(state, past, items)
    if wanted is None:
        raise PolicyError(f"{type(users).__name__} has no utility; a planner cannot rank its items")
    score = wanted * _value_of_a_click(core, items)
    promise = users.promise(state, items) if weight and isinstance(users, TasteUsers) else None
    if promise is not None:
        score = score + weight * _left(core).unsqueeze(1) * promise
    return best_slate(score, core.action_mask(), k)


def looks_ahead(users: UserSimulator) -> bool:
    """Whether anything shown to these users changes their later answers, as `promise` tells."""
    return isinstance(users, TasteUsers) and type(users).promise is not TasteUsers.promise


@torch.no_grad()
def _trial(core: Core, k: int, weight: float) -> float:
    """Mean return of one episode a lane."""
    trial = core.like(batch=_LANES, seed=_SEED, slate_size=k, users="all", start="cold")
    alive = torch.ones(_LANES, dtype=torch.bool, device=core.device)
    earned = torch.zeros(_LANES, device=core.device)
    for _ in range(trial.max_steps):
        step = trial.step(lookahead_slates(trial, k, weight))
        earned = earned + step.reward * alive
        alive = alive & ~(step.terminated | step.truncated)
        if not bool(alive.any()):
            break
    return float(earned.mean())


def _left(core: Core) -> Tensor:
    """Share of the episode that is left, by slates or by days, whichever is less: (B,)."""
    left = 1 - (core.past.step + 1).to(torch.float32) / core.max_steps
    if core.max_days is not None:
        left = torch.minimum(left, 1 - core.days / core.max_days)
    return left.clamp(min=0)


def _value_of_a_click(core: Core, items: Tensor) -> Tensor:
    """Expected reward of a click on each item (B, N): its own weight, and those of the signals that a click brings."""
    reward, signals = core.reward, core.world.signals
    if not isinstance(reward, WeightedReward):
        raise PolicyError("the planner plans for a reward in terms; a callable has no known plan")
    if reward.diversity or reward.repeats or reward.leaving or any("*" not in c for c in reward.columns):
        raise PolicyError("the planner plans for a reward of signals alone; other rewards have no known plan")
    click = signals[0].name
    units = reward.units(signals, ShownItems(items, core.columns)).expand(*items.shape, len(signals))  # (B, N, S)
    value: Tensor = units[..., 0]
    further = {name for name in (*reward.signals, *(name.split("*")[0] for name in reward.columns)) if name != click}
    if not further:
        return value
    expected = core.simulator.expected(core.state, core.past, items)
    names = [signal.name for signal in signals]
    for name in sorted(further):
        if expected is None or name not in names or signals[names.index(name)].given_on != click:
            raise PolicyError(f"the planner cannot value signal '{name}'; it must be given on '{click}' and expected")
        value = value + units[..., names.index(name)] * expected.mean[..., names.index(name)]
    return value
