"""Looking ahead in a truth world: items ranked by what they earn now and what they do for later slates."""

from dataclasses import dataclass

import torch
from torch import Tensor

from recloop.agents.slates import best_slate
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.reward import WeightedReward
from recloop.envs.simulation.core import Core
from recloop.envs.truth.tastes import TasteUsers
from recloop.envs.users.contract import UserSimulator

WEIGHTS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""What the future may weigh, tried from the least."""
_LANES = 128
_SEED = 0x91A7


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
    return best_slate(score, core.spec.action_mask(past), k)


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


def looks_ahead(users: UserSimulator) -> bool:
    """Whether anything shown to these users changes their later answers, as `promise` tells."""
    return isinstance(users, TasteUsers) and type(users).promise is not TasteUsers.promise


@torch.no_grad()
def _trial(core: Core, k: int, weight: float) -> float:
    """Mean return of one episode a lane."""
    trial = Core(
        core.world,
        core.simulator,
        batch=_LANES,
        slate_size=k,
        max_steps=core.max_steps,
        users="all",
        seed=_SEED,
        reward=core.reward,
        sessions=core.sessions,
        max_days=core.max_days,
        start="cold",
        device=core.device,
    )
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
    if not isinstance(reward, WeightedReward) or reward.diversity or reward.repeats or reward.leaving:
        raise PolicyError("the planner plans for a WeightedReward of signals alone; other rewards have no known plan")
    click = signals[0].name
    value = torch.full(items.shape, float(reward.signals.get(click, 0.0)), device=items.device)
    further = {name: weight for name, weight in reward.signals.items() if weight and name != click}
    if not further:
        return value
    expected = core.simulator.expected(core.state, core.past, items)
    names = [signal.name for signal in signals]
    for name, weight in further.items():
        if expected is None or name not in names or signals[names.index(name)].given_on != click:
            raise PolicyError(f"the planner cannot value signal '{name}'; it must be given on '{click}' and expected")
        value = value + weight * expected.mean[..., names.index(name)]
    return value
