"""Which items of a slate a user consumes: log-odds by item, how places compete, and the best slate under that."""

from typing import Literal, Protocol, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.agents.baselines.greedy import TellsChances
from recloop.agents.learners.off_policy.item_values import CandidateInputs, CandidateValues
from recloop.agents.networks.heads import Actor
from recloop.agents.slates import FORBIDDEN
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.observation import Observation, past_of
from recloop.envs.users.contract import UserSimulator
from recloop.envs.world.world import World

Competition = Literal["independent", "logit"]
"""How the places of a slate compete.

`independent`: each item is consumed or not, by its own odds, whatever stands beside it; several may be.
`logit`: at most one is, or nothing (the null choice, of weight 1): item i with chance v_i / (1 + sum over the slate of
v), v the odds of i when shown alone (conditional logit, McFadden 1974). Where several were consumed, each counts as the
one choice by an equal share.
"""

Search = Literal["top-k", "greedy", "exact"]
"""How a slate of the highest value is looked for; see `best_positions`."""

_LARGEST = 20.0
"""Log-odds beyond which a choice is certain."""
_ROUNDS = 8
"""Steps of the exact search, which comes closer faster than linearly: seven were enough in 10,000 random cases of 20 to
200 candidates and slates of 5 to 20."""


class ChoiceModel(Protocol):
    """Says how likely each candidate is consumed."""

    def __call__(self, observation: Observation, look: CandidateInputs) -> Tensor:
        """Log-odds (B, C) of consuming each item of the look (B, C) when it is shown alone."""


class LearnedChoice(nn.Module):
    """Log-odds from item vectors and features of the user, fitted to what was consumed in the loop.

    Args:
        actor: with head `candidates`; its scores are the log-odds but for an offset that all items share.
        gain: how fast the offset learns, as a multiple of the learning rate.
        first: the offset of a fresh model.
    """

    def __init__(self, actor: Actor, gain: float, first: float = -2.0) -> None:
        super().__init__()
        self.scores, self.gain = CandidateValues(actor, values=0), gain
        self.offset = nn.Parameter(torch.tensor(first / gain))

    def forward(self, observation: Observation, look: CandidateInputs) -> Tensor:
        """See `ChoiceModel`; the observation is not read anew."""
        scores: Tensor = self.scores(look)[1]
        return scores + self.gain * self.offset


class UsersChoice:
    """Log-odds from a fitted user model, which guesses the users' state from the past: the world's own is never read.

    Slower than a learned model, as the whole past is read anew in each step.

    Args:
        model: of users, its copy.
        world: it was fitted in.

    Raises:
        PolicyError: a model that cannot guess a state, or says nothing of single items.
    """

    def __init__(self, model: UserSimulator | None, world: World) -> None:
        if model is None:
            raise PolicyError(f"world '{world.name}' has no user model to choose by; take choice='learned'")
        silent = type(model).expected is UserSimulator.expected and not isinstance(model, TellsChances)
        if silent or type(model).infer is UserSimulator.infer:
            raise PolicyError(
                f"choice='users' needs `infer`, and `expected` or `chances`, of {type(model).__name__}; take "
                "choice='learned'"
            )
        self.model, self.world = model, world
        self._prepared: torch.device | None = None

    @torch.no_grad()
    def __call__(self, observation: Observation, look: CandidateInputs) -> Tensor:
        """See `ChoiceModel`."""
        past, items = past_of(observation), look.items
        if self._prepared != items.device:
            self.model.prepare(self.world, items.device)
            self._prepared = items.device
        state = self.model.infer(past, observation["profile"])
        if isinstance(self.model, TellsChances):
            chance = self.model.chances(state, past, items)
        else:
            rows = torch.arange(len(items), device=items.device).repeat_interleave(items.shape[1])
            expected = self.model.expected(state.rows(rows), past.rows(rows), items.reshape(-1, 1))
            assert expected is not None
            chance = expected.mean[:, 0, 0].view(items.shape)
        return torch.logit(chance, eps=1e-6).masked_fill(~look.mask, FORBIDDEN)


def chances(log_odds: Tensor, shown: Tensor, competition: Competition) -> Tensor:
    """The chance (B, K) that each place of a slate is consumed; 0 where nothing is shown.

    >>> chances(torch.zeros(1, 2), torch.tensor([[True, True]]), "logit")
    tensor([[0.3333, 0.3333]])
    """
    if competition == "independent":
        return torch.sigmoid(log_odds) * shown
    return _with_null(log_odds, shown).softmax(1)[:, 1:]


def shares(consumed: Tensor, competition: Competition) -> Tensor:
    """How much each place (B, K) counts as chosen: float32, a mean of which is what `chances` tells."""
    counted = consumed.to(torch.float32)
    return counted if competition == "independent" else counted / counted.sum(1, keepdim=True).clamp_min(1)


def choice_loss(log_odds: Tensor, consumed: Tensor, shown: Tensor, competition: Competition) -> Tensor:
    """Minus the mean log-likelihood of what was consumed, () in nats a place, or a slate under `logit`."""
    counted = shares(consumed & shown, competition)
    if competition == "independent":
        each = F.binary_cross_entropy_with_logits(log_odds.masked_fill(~shown, 0.0), counted, reduction="none")
        return (each * shown).sum() / shown.sum().clamp_min(1)
    logs = _with_null(log_odds, shown).log_softmax(1)
    return -(logs[:, 0] * (1 - counted.sum(1)) + (logs[:, 1:] * counted).sum(1)).mean()


def slate_value(log_odds: Tensor, worth: Tensor, shown: Tensor, competition: Competition) -> Tensor:
    """What slates are expected to earn, (B,): the worth (B, K) of each place times the chance that it is consumed."""
    return (chances(log_odds, shown, competition) * worth).sum(1)


def best_positions(
    log_odds: Tensor, worth: Tensor, mask: Tensor, k: int, competition: Competition, search: Search
) -> Tensor:
    """Positions (B, k) of the slate of highest `slate_value`, among C candidates.

    Where places are independent, the k largest of chance x worth, and all searches agree. Under `logit`, with odds v:
    `top-k` takes the k largest of v x worth, and `greedy` adds the item that makes the slate so far the best (both of
    Ie et al. 2019, without guarantee). `exact` finds the best slate of k items by Dinkelbach's (1967) method for ratios
    of sums: the k largest of v x (worth - value of the slate so far), anew until that stays; the paper's linear
    programme has the same optimum.

    Args:
        log_odds: float32 (B, C), of each candidate alone.
        worth: float32 (B, C), what its consumption is worth, over nothing consumed.
        mask: bool (B, C), which may be shown; positions of others fill the end where fewer than k may.
        k: length of the slate, at most C.
        competition: how places compete.
        search: how to look.
    """
    odds = log_odds.clamp(max=_LARGEST).exp().masked_fill(~mask, 0.0)
    if competition == "independent":
        return _largest(torch.sigmoid(log_odds) * worth, mask, k)
    if search == "greedy":
        return _greedy(odds, odds * worth, mask, k)
    found = _largest(odds * worth, mask, k)
    for _ in range(_ROUNDS if search == "exact" else 0):
        gained, weight = (odds * worth).gather(1, found), odds.gather(1, found)
        value = gained.sum(1, keepdim=True) / (1 + weight.sum(1, keepdim=True))
        found = _largest(odds * (worth - value), mask, k)
    return found


def checked_choice(competition: str, search: str) -> None:
    """`PolicyError` for names that are not among `Competition` and `Search`."""
    for name, value, known in (("competition", competition, Competition), ("search", search, Search)):
        if value not in get_args(known):
            raise PolicyError(f"{name}='{value}'; choose {' or '.join(get_args(known))}")


def _largest(scores: Tensor, mask: Tensor, k: int) -> Tensor:
    return scores.masked_fill(~mask, FORBIDDEN).topk(k, dim=1).indices


def _greedy(odds: Tensor, gained: Tensor, mask: Tensor, k: int) -> Tensor:
    """One place after the other: the item with which the slate so far has the highest value."""
    taken = torch.zeros_like(odds).masked_fill(~mask, FORBIDDEN)
    total, weight = torch.zeros_like(odds[:, :1]), torch.ones_like(odds[:, :1])
    positions = []
    for _ in range(k):
        best = ((total + gained) / (weight + odds) + taken).argmax(1, keepdim=True)  # (B, 1)
        taken = taken.scatter(1, best, -torch.inf)
        total, weight = total + gained.gather(1, best), weight + odds.gather(1, best)
        positions.append(best)
    return torch.cat(positions, dim=1)


def _with_null(log_odds: Tensor, shown: Tensor) -> Tensor:
    """Logits (B, 1 + K): the null choice, then the places."""
    places = log_odds.clamp(max=_LARGEST).masked_fill(~shown, -torch.inf)
    return F.pad(places, (1, 0))
