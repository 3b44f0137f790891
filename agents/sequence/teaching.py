"""What a teacher thinks of users' next items, written down once: a slow policy distilled into a sequence model."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.agents.observed import Observed
from recloop.agents.policy import Policy, ScoringPolicy
from recloop.agents.sequence.model import SequenceModel
from recloop.encoders.base.errors import PolicyError
from recloop.envs.logs.sequences import Ints
from recloop.envs.world.world import World

_AT_ONCE = 256


@dataclass(frozen=True)
class Lessons:
    """Histories, and how a teacher ranks what may come next.

    Args:
        history: int64 (M, H), newest last, N empty.
        items: int64 (M, C) the teacher's best items.
        odds: float32 (M, C) its softmax over them.
    """

    history: Tensor
    items: Tensor
    odds: Tensor

    def loss(self, model: SequenceModel, count: int, draws: torch.Generator) -> Tensor:
        """Mean divergence of the model's softmax over those items from the teacher's, on `count` random histories."""
        rows = torch.randint(len(self.history), (count,), generator=draws, device=draws.device).cpu()
        history, items, odds = (part[rows].to(model.bias.device) for part in (self.history, self.items, self.odds))
        ours = F.log_softmax(model.scores(history).gather(1, items), dim=1)
        return F.kl_div(ours, odds, reduction="batchmean")


def lessons_of(
    teacher: Policy, world: World, users: Ints, length: int, cuts: int, best: int = 100, seed: int = 0
) -> Lessons:
    """Ask a teacher about histories of some users, each cut at a few random places.

    Hinton, Vinyals and Dean (2015), over the teacher's best items instead of all.

    Args:
        teacher: whose scores are learned from.
        world: of the users.
        users: int64 (U,) rows.
        length: newest items of a history that the student reads.
        cuts: histories a user; fewer where a user consumed less.
        best: C items of each.
        seed: of the cuts.

    Raises:
        PolicyError: a teacher that scores no items, or users who consumed nothing.
    """
    if not isinstance(teacher, ScoringPolicy):
        raise PolicyError(f"'{teacher.name}' gives slates and no scores to learn from; take a policy that scores items")
    rng, ids = np.random.default_rng(seed), world.catalogue.ids
    owners: list[int] = []
    ends: list[int] = []
    for user in users.tolist():
        most = int(world.sequences.lengths[user])
        some = rng.permutation(most)[:cuts] + 1
        owners += [user] * len(some)
        ends += some.tolist()
    if not owners:
        raise PolicyError("the train users consumed nothing; a teacher has nothing to be asked about")
    n, histories, items, odds = len(ids), [], [], []
    for first in range(0, len(owners), _AT_ONCE):
        chunk = slice(first, first + _AT_ONCE)
        pairs = list(zip(owners[chunk], ends[chunk], strict=True))
        people = [Observed(history=[ids[i] for i in world.sequences.of(user)[0][:end]]) for user, end in pairs]
        observation = teacher._serving().observe(people)
        scores = teacher.scores(observation).float().masked_fill(~observation["action_mask"], -torch.inf)
        top = scores.topk(min(best, n), dim=1)
        items.append(top.indices)
        odds.append(top.values.softmax(1))
        history, _ = world.sequences.last(np.array(owners[chunk]), length, np.array(ends[chunk]))
        histories.append(history)
    return Lessons(torch.cat(histories), torch.cat(items), torch.cat(odds))
