"""What a language model puts in order: the best C of another policy, in the loop and at moments of the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.agents.language.examples import Moment
from recloop.agents.policy import FitOptions, ScoringPolicy
from recloop.agents.registry import facts_of, make_policy
from recloop.agents.serving import Serving
from recloop.agents.slates import action_mask, best_slate
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.observation import Observation
from recloop.envs.world.world import World

_PREFIX = "retriever."


class CandidateSource:
    """Another policy, whose best items are put in order.

    Args:
        policy: scores every item.
        count: C, how many of its best.
    """

    def __init__(self, policy: ScoringPolicy, count: int) -> None:
        self.policy, self.count = policy, count

    @classmethod
    def fit(cls, name: str, count: int, world: World, options: FitOptions) -> CandidateSource:
        """A policy by name or folder, made for the world; `PolicyError` where it has no scores of all items."""
        policy = make_policy(name, world, replace(options, steps=None, settings={}))
        if not isinstance(policy, ScoringPolicy) or not policy.kind:
            raise PolicyError(
                f"policy '{name}' has no scores of all items; take encoder, lm-ranker, sasrec, popularity, or a "
                "folder of such a policy"
            )
        return cls(policy, count)

    def scores(self, observation: Observation) -> Tensor:
        """Of all items, float32 (B, N)."""
        return self.policy.scores(observation)

    def best(self, observation: Observation, scores: Tensor) -> Tensor:
        """The best admissible items, int64 (B, C), N where fewer may be shown."""
        return best_slate(scores, action_mask(observation, scores.shape[1]), self.count)

    def facts(self) -> dict[str, Any]:
        """What `restored` needs besides tensors."""
        return {"kind": self.policy.kind, "config": self.policy.config()}

    def tensors(self) -> dict[str, Tensor]:
        """The policy's own, under names that do not meet others."""
        return {f"{_PREFIX}{name}": value for name, value in self.policy.tensors().items()}

    @classmethod
    def restored(
        cls, facts: Mapping[str, Any], count: int, serving: Serving, tensors: Mapping[str, Tensor]
    ) -> CandidateSource:
        """Undo `facts` and `tensors`."""
        found = facts_of(str(facts["kind"]))
        if not issubclass(found, ScoringPolicy):
            raise PolicyError(f"retriever '{facts['kind']}' has no scores of all items; train the policy anew")
        own = {name.removeprefix(_PREFIX): value for name, value in tensors.items() if name.startswith(_PREFIX)}
        policy = found.restore(serving, facts["config"], own)
        policy.serving = serving
        return cls(policy, count)


def without_candidates(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that are not the retriever's."""
    return {name: value for name, value in tensors.items() if not name.startswith(_PREFIX)}


def reordered(scores: Tensor, rows: Tensor, own: Tensor) -> Tensor:
    """Scores of all items in which the candidates stand above all others, by scores of their own.

    Args:
        scores: float32 (B, N) of the retriever.
        rows: int64 (B, C) of the candidates, N for none.
        own: float32 (B, C).

    >>> reordered(torch.tensor([[5.0, 4.0, 3.0]]), torch.tensor([[0, 1, 3]]), torch.tensor([[-2.0, 1.0, 0.0]])).tolist()
    [[-2.0, 1.0, -5.0]]
    """
    least = own.min(1, keepdim=True).values - 1
    below = scores - scores.max(1, keepdim=True).values + least
    return F.pad(below, (0, 1)).scatter(1, rows, own)[:, :-1]


@torch.no_grad()
def observation_at(world: World, moment: Moment) -> Observation:
    """What a policy would have observed at moments of the log: history, state, and what had not been consumed."""
    length = world.users.history.shape[1]
    history, feedback = world.sequences.last(moment.users, length, moment.ends)
    encoder = world.state_encoder
    where = encoder.item_vectors.device
    told = (table.to(where) for table in (world.users.profile[moment.users], history, feedback))
    state = encoder.vector(encoder.start(*told)).cpu()
    whole, _ = world.sequences.last(moment.users, max(int(moment.ends.max()), 1), moment.ends)
    seen = torch.zeros(len(history), len(world.catalogue) + 1, dtype=torch.bool).scatter(1, whole, True)
    return {"history": history, "state": state, "action_mask": ~seen[:, :-1]}
