"""Policies with probabilities: softened ones, logged ones from counts; what each would have shown at logged moments."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from sklearn.cluster import KMeans
from torch import Tensor

from recloop.agents.acting import propensities
from recloop.agents.asking import asked
from recloop.agents.policy import Carry, Policy
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.observation import Observation
from recloop.envs.interaction.randomness import Draw
from recloop.experiments.off_policy.choices import Floats, Ints, LoggedChoices

DRAWS = 16
"""Slates drawn from a policy at every logged moment, for what it is expected to show."""
_BATCH = 1 << 24
"""Entries of (B, N) at once."""
_CLUSTERS = 8
"""Kinds of moments in which estimated propensities are checked."""
MOST_OFF = 0.1
"""Largest root mean square relative error of estimated propensities over kinds of moments and items."""


class Softened(Policy):
    """A ranking policy that explores: with chance epsilon a place shows any admissible item not shown above, all alike.

    Otherwise it shows the best-ranked item that is not shown above. So every place has the chance
    (1 - epsilon) [item is the best left] + epsilon / (admissible items left), which is exact.

    Args:
        base: ranks the same items whatever the draw, and keeps no memory.
        epsilon: in (0, 1).
    """

    def __init__(self, base: Policy, epsilon: float) -> None:
        if not 0 < epsilon < 1:
            raise PolicyError(
                f"--epsilon {epsilon:g} is no chance to explore; it must lie between 0 and 1, such as 0.1"
            )
        if not base.ranks:
            raise PolicyError(f"policy '{base.name}' does not rank items, so it cannot be softened with --epsilon; "
                              "choose a policy that ranks or has probabilities")  # fmt: skip
        self.base, self.epsilon, self.name = base, epsilon, f"{base.name}, epsilon {epsilon:g}"

    def act(self, observation: Observation, carry: Carry, k: int, draw: Draw) -> tuple[Tensor, Carry]:
        """The slate place by place."""
        mask = observation["action_mask"].bool()
        ranked, left = self._ranked(observation, k), mask.clone()
        slate = ranked.new_full(ranked.shape, mask.shape[1])
        for place in range(k):
            anywhere = torch.arange(mask.shape[1]).unsqueeze(0)
            noise = draw.gumbel(f"explored item {place}", anywhere).masked_fill(~left, -torch.inf)
            explores = draw.uniform(f"explores {place}") < self.epsilon
            pick = torch.where(explores, noise.argmax(1), self._best(ranked, slate[:, :place], mask.shape[1]))
            slate[:, place] = pick.masked_fill(~left.any(1), mask.shape[1])
            left = _without(left, slate[:, place])
        return slate, None

    def log_prob(self, observation: Observation, slate: Tensor) -> Tensor:
        """Exact, (B,)."""
        mask = observation["action_mask"].bool()
        ranked, n, left = self._ranked(observation, slate.shape[1]), mask.shape[1], mask.clone()
        total = torch.zeros(len(slate), dtype=torch.float64)
        for place in range(slate.shape[1]):
            item = slate[:, place]
            best = self._best(ranked, slate[:, :place], n)
            there = torch.nn.functional.pad(left, (0, 1)).gather(1, item.unsqueeze(1))[:, 0]
            chance = (1 - self.epsilon) * (best == item) + self.epsilon / left.sum(1).clamp_min(1)
            total = total + (chance * there).double().log()
            left = _without(left, item)
        return total

    def _ranked(self, observation: Observation, k: int) -> Tensor:
        zeros = torch.zeros(len(observation["action_mask"]), dtype=torch.int64)
        slates = [
            asked(self.base.act, self.base, observation, None, k, Draw.at(s, zeros, zeros, zeros)) for s in (0, 1)
        ]
        if slates[0][1] is not None or not torch.equal(slates[0][0], slates[1][0]):
            raise PolicyError(
                f"policy '{self.base.name}' draws its slates or keeps a memory, and has no probabilities; only one "
                "that always ranks alike can be softened with --epsilon"
            )
        return slates[0][0]

    def _best(self, ranked: Tensor, above: Tensor, n: int) -> Tensor:
        """The best-ranked item (B,) that is not among those above (B, k)."""
        free = ~(ranked.unsqueeze(2) == above.unsqueeze(1)).any(2) & (ranked < n)
        first = free.to(torch.int8).argmax(1, keepdim=True)
        return ranked.gather(1, first)[:, 0].masked_fill(~free.any(1), n)


class PlaceShares(Policy):
    """A logging policy from its log: at each place the items in the shares in which they were shown there.

    Shares are counted among the slates that did not show the item further up, and are made to sum to 1 over the items
    that are admissible and not shown above. Whether they depend on the moment, they do not know.

    Args:
        shares: float64 (K, N), not negative.
        name: of the policy.
    """

    ranks = True

    def __init__(self, shares: Tensor, name: str) -> None:
        self.shares, self.name = shares, name

    @classmethod
    def counted(cls, log: LoggedChoices, name: str) -> "PlaceShares":
        """From the slates of a log."""
        n, k = log.catalogue_size, log.items.shape[1]
        place = log.first[:, None] + np.arange(k)
        shown, above = np.zeros((int(place.max()) + 1, n + 1)), np.zeros((int(place.max()) + 1, n + 1))
        np.add.at(shown, (place, log.items), 1.0)
        for lower in range(1, k):
            np.add.at(above, (place[:, lower, None], log.items[:, :lower]), log.held[:, lower, None] * 1.0)
        at_risk = shown[:, :n].sum(1, keepdims=True) - above[:, :n]
        return cls(torch.from_numpy(shown[:, :n] / np.maximum(at_risk, 1)), name)

    def act(self, observation: Observation, carry: Carry, k: int, draw: Draw) -> tuple[Tensor, Carry]:
        """One item after the other."""
        n, left = self.shares.shape[1], observation["action_mask"].bool()
        picks = []
        for place in range(k):
            noise = draw.gumbel(f"item of place {place}", torch.arange(n).unsqueeze(0))
            logits = (self._at(observation, place).log() + noise).masked_fill(~left, -torch.inf)
            pick = logits.argmax(1).masked_fill(torch.isinf(logits).all(1), n)
            left = _without(left, pick)
            picks.append(pick)
        return torch.stack(picks, 1), None

    def log_prob(self, observation: Observation, slate: Tensor) -> Tensor:
        """Exact for these shares, (B,)."""
        left = observation["action_mask"].bool()
        total = torch.zeros(len(slate), dtype=torch.float64)
        for place in range(slate.shape[1]):
            here = torch.nn.functional.pad(self._at(observation, place) * left, (0, 1))
            chance = here.gather(1, slate[:, place : place + 1])[:, 0] / here.sum(1).clamp_min(1e-300)
            total, left = total + chance.log(), _without(left, slate[:, place])
        return total

    def _at(self, observation: Observation, place: int) -> Tensor:
        """Shares (B, N) at a place of the slate."""
        return self.shares[(observation["first_place"] + place).clamp(max=len(self.shares) - 1)]


@dataclass(frozen=True)
class Target:
    """A policy at logged moments.

    Args:
        name: of the policy.
        chance: float64 (Q, K) with which it would have put the logged item in its place, given those above; 0 where it
            never would, 1 at empty places.
        drawn: int64 (M, Q, K) slates that it would have shown; N is empty.
    """

    name: str
    chance: Floats
    drawn: Ints


def target_of(policy: Policy, log: LoggedChoices, *, epsilon: float | None = None, seed: int = 0) -> Target:
    """What a policy would have shown at the moments of a log.

    Args:
        policy: with probabilities, or one that ranks where `epsilon` is given.
        log: whose observations it reads.
        epsilon: softens a policy that has no probabilities; see `Softened`.
        seed: of its draws.

    Raises:
        PolicyError: a policy without probabilities.
    """
    lanes, k = len(log.items), log.items.shape[1]
    batch = max(1, min(4096, _BATCH // max(log.catalogue_size, 1)))
    chances, drawn = [], []
    softened = policy
    for start in range(0, lanes, batch):
        some = slice(start, start + batch)
        seen = {key: value[some] for key, value in log.observation.items()}
        slate = torch.from_numpy(log.items[some])
        found = propensities(softened, seen, slate)
        if found is None and epsilon is not None:
            softened = Softened(policy, epsilon)
            found = propensities(softened, seen, slate)
        if found is None:
            raise PolicyError(
                f"policy '{policy.name}' is a policy without probabilities where weights need them; soften it with "
                "--epsilon 0.1, or name one that draws its slates, such as bc"
            )
        chances.append(found.double().nan_to_num(0.0).numpy())
        lane = torch.arange(start, start + len(slate))
        draws = [Draw.at(seed, lane, torch.full_like(lane, m), torch.zeros_like(lane)) for m in range(DRAWS)]
        with torch.no_grad():
            shown = [asked(softened.act, softened, seen, None, k, draw)[0] for draw in draws]
        drawn.append(torch.stack(shown).numpy())
    chance = np.where(log.held, np.concatenate(chances), 1.0)
    return Target(softened.name, chance, np.concatenate(drawn, axis=1))


def with_estimated(log: LoggedChoices, policy: Policy | None = None, seed: int = 0) -> LoggedChoices:
    """The log with propensities that are estimated, and what speaks against them.

    Args:
        log: its own propensities, if any, are not read.
        policy: a model of who made the log, with probabilities, such as `bc`; default the shares of items by place.
        seed: of its draws.
    """
    bare = replace(log, propensity=None)
    model = target_of(policy or PlaceShares.counted(bare, "shares by place"), bare, seed=seed)
    doubt = miscalibration(bare, model, seed)
    never = int(((model.chance <= 0) & log.held).sum())
    if never:
        doubt = f"{never} places were logged that the estimate ({model.name}) holds impossible"
        model = replace(model, chance=np.where(model.chance <= 0, 1.0, model.chance))
    return replace(log, propensity=model.chance, doubt=doubt)


def miscalibration(log: LoggedChoices, model: Target, seed: int = 0) -> str:
    """Why estimated propensities are off, or an empty text.

    Moments are sorted into eight kinds by context (k-means). In every kind, how often each item was shown at each place
    is held against how often the model shows it there: Pearson's chi-square over the cells that expect 5 or more. Off
    is what a test refutes at 0.1 % and what errs by more than `MOST_OFF`, root mean square relative, less noise.
    """
    kind = np.zeros(len(log.items), dtype=np.int64)
    if log.context.shape[1] and len(log.items) > 4 * _CLUSTERS:
        clusters = min(_CLUSTERS, len(np.unique(log.context, axis=0)))
        kind = KMeans(clusters, n_init=1, random_state=seed).fit_predict(log.context).astype(np.int64)
    places = log.first[:, None] + np.arange(log.items.shape[1])
    shape = (_CLUSTERS, int(places.max()) + 1, log.catalogue_size + 1)
    seen, expected = np.zeros(shape), np.zeros(shape)
    np.add.at(seen, (kind[:, None], places, log.items), 1.0)
    np.add.at(expected, (kind[:, None], places, model.drawn), 1.0 / len(model.drawn))
    seen, expected = seen[..., :-1], expected[..., :-1]
    cells = expected >= 5
    error = (seen - expected)[cells] ** 2 / expected[cells] / (1 + 1 / len(model.drawn))
    p, off = float(stats.chi2.sf(error.sum(), cells.sum())), _off(error, expected[cells])
    if cells.any() and p < 0.001 and off > MOST_OFF:
        return (
            f"estimated propensities ({model.name}) are off by {off:.0%} across kinds of moments (at most "
            f"{MOST_OFF:.0%}, p {p:.0e}); the log's policy follows what the estimate does not know, log propensities "
            "or name a better model of it"
        )
    return ""


def _without(left: Tensor, item: Tensor) -> Tensor:
    """Which items are left, bool (B, N), without one more (B,); N is none."""
    return left & (torch.arange(left.shape[1]) != item.unsqueeze(1))


def _off(error: npt.NDArray[np.float64], expected: npt.NDArray[np.float64]) -> float:
    return float(np.sqrt(max(0.0, error.sum() - len(error)) / max(expected.sum(), 1.0)))
