"""GRPO: a supervised recommender tuned further by what simulated users do, without a value network."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from recloop.agents.facts import Group, Trains
from recloop.agents.isolation import isolated_randomness
from recloop.agents.learners.loop import LOSS_TAG
from recloop.agents.policy import FitOptions, Policy, Trainer
from recloop.agents.registry import make_policy
from recloop.agents.slates import FORBIDDEN, action_mask, log_prob, sample
from recloop.agents.validation import PolicyValidation
from recloop.encoders.base.errors import PolicyError
from recloop.encoders.base.fit import shuffled
from recloop.encoders.base.progress import progress_bar
from recloop.envs.interaction.observation import Observation
from recloop.envs.simulation.core import Core
from recloop.envs.simulation.penalties import training_reward
from recloop.envs.simulation.retrieval import best_of
from recloop.envs.simulation.rollout import Picked, rollout
from recloop.envs.world.world import World


@runtime_checkable
class Tunable(Protocol):
    """A policy whose scores have a gradient.

    A deep copy of it is the start that tuning stays near.

    Attributes:
        network: what is tuned.
        reads: observation keys that `logits` reads.
    """

    reads: ClassVar[tuple[str, ...]]

    @property
    def network(self) -> nn.Module:
        """What is tuned."""

    def logits(self, observation: Observation) -> Tensor:
        """Scores of all items, float32 (B, N), differentiable in the weights of `network`."""


@dataclass(frozen=True)
class GRPOConfig:
    """How a supervised policy is tuned in the loop.

    Args:
        start: the policy to start from, and to stay near: a name, trained first with its defaults, or a policy folder.
        steps: environment steps over all lanes.
        users: whose sessions are sampled between two updates.
        group: G sessions sampled of each of them, with the same luck.
        learning_rate: of Adam; falls linearly to zero.
        gamma: discount a slate, in [0, 1].
        credit: what a slate is judged by: `after`, rewards from it on, or `whole`, its session's, as in the paper.
        clip: how far the odds of a slate may move in an update.
        kl: weight of the divergence from the start.
        temperature: scores are divided by it before slates are drawn.
        candidates: C best items that slates are drawn from; None for all.
        epochs: passes over the sampled slates.
        batch_size: slates a gradient step.
        max_grad_norm: longest gradient step.
        validations: how often the policy is tried during training; the best one is kept.
        validation_episodes: of a trial, always with the same users.
    """

    start: str = "sasrec"
    steps: int = 100_000
    users: int = 16
    group: int = 8
    learning_rate: float = 1e-4
    gamma: float = 0.97
    credit: Literal["after", "whole"] = "after"
    clip: float = 0.2
    kl: float = 0.02
    temperature: float = 1.0
    candidates: int | None = 200
    epochs: int = 2
    batch_size: int = 256
    max_grad_norm: float = 1.0
    validations: int = 10
    validation_episodes: int = 128

    def __post_init__(self) -> None:
        for name in ("steps", "users", "epochs", "batch_size", "validations", "validation_episodes"):
            if getattr(self, name) < 1:
                raise PolicyError(f"{name}={getattr(self, name)} of grpo must be at least 1")
        if self.group < 2:
            raise PolicyError(
                f"group={self.group} of grpo; slates are judged against others of the group, take 2 or more"
            )
        if not 0 <= self.gamma <= 1 or not self.temperature > 0:
            raise PolicyError(
                f"gamma={self.gamma} of grpo must lie in [0, 1] and temperature={self.temperature} above 0"
            )


@dataclass
class _Slates:
    """What was sampled: M slates that count, and all that an update needs of them.

    Args:
        seen: what the policy read, (M, ...) by key.
        items: int64 (M, C) candidates, N where there are fewer.
        positions: int64 (M, K) of the slate among them.
        log_prob: float32 (M,) when they were drawn.
        reference: float32 (M,) under the policy that training started from.
        advantage: float32 (M,) against the other sessions of the group.
    """

    seen: dict[str, Tensor]
    items: Tensor
    positions: Tensor
    log_prob: Tensor
    reference: Tensor
    advantage: Tensor


class GRPO(Trainer):
    """Group relative policy optimisation (Shao et al. 2024) of a recommender that scores all items.

    Slates are drawn item by item, without repeats, from the softmax of the scores over the best candidates, so that
    their log-probabilities are exact. Of each user, G sessions are sampled, and a slate's advantage is what followed it
    less the group's mean at the same slate, over the group's spread. Differences from the paper: an action is a slate
    and not a token; the sessions of a group share the users' luck, so that equal slates get equal answers and the
    difference is the slates' own; what followed is discounted (`credit=whole` gives the paper's one advantage a
    session); the clipped surrogate and the unbiased estimate of the divergence from the start are as there. Kept is the
    policy that does best in the validation simulator, the start among them.
    """

    name = "grpo"
    policy_class = Policy
    group: ClassVar[Group] = "rl"
    paper: ClassVar[str] = "Shao et al. 2024"
    trains: ClassVar[Trains] = "loop"
    config_class: ClassVar[type[GRPOConfig]] = GRPOConfig

    @classmethod
    def fit(cls, world: World, options: FitOptions) -> Policy:
        """Make the policy to start from, and tune it among the world's training users."""
        config = options.over(GRPOConfig(), cls.name)
        start = make_policy(
            config.start, world, FitOptions(options.seed, device=options.device, progress=options.progress)
        )
        if not isinstance(start, Tunable):
            raise PolicyError(
                f"grpo cannot tune '{config.start}': its scores have no gradient; start from sasrec, another sequence "
                "model or lm-ranker"
            )
        with isolated_randomness(options.seed):
            return _Tuning(world, start, config, options).run()


class _Tuning:
    """One training."""

    def __init__(self, world: World, policy: Policy, config: GRPOConfig, options: FitOptions) -> None:
        assert isinstance(policy, Tunable)
        self.policy, self.tunable, self.config, self.options = policy, policy, config, options
        self.core = Core(
            world,
            batch=config.users * config.group,
            users="train",
            seed=options.seed,
            reward=training_reward(world, options.penalties, options.device),
            keys=(*dict.fromkeys((*policy.reads, "history", "action_mask")),),
            device=options.device,
        )
        self.network = policy.network.to(self.core.device)
        self.weights = [weight for weight in self.network.parameters() if weight.requires_grad]
        if not self.weights:
            raise PolicyError(f"policy '{policy.name}' has no weight that may be tuned; start from another")
        self.reference: Tunable = copy.deepcopy(policy)
        self.optimizer = torch.optim.Adam(self.weights, lr=config.learning_rate)
        self.draws = torch.Generator(self.core.device).manual_seed(options.seed)
        floor = options.penalties.held
        self.validation = PolicyValidation(world, config.validation_episodes, options.device, floor=floor)

    def run(self) -> Policy:
        """Tune to the end; the policy with the best weights."""
        config, log = self.config, self.options.log or _unheard
        steps = number = 0
        due, best, kept = 0, (-torch.inf, -torch.inf), self._copy()
        bar = progress_bar(total=config.steps, desc="grpo", unit="step", disable=not self.options.progress)
        while steps < config.steps:
            if steps >= due:
                found = self.validation.trial(self.policy)
                self.options.validated(self.policy, found.value, steps)
                best, kept = (found.rank, self._copy()) if found.rank > best else (best, kept)
                due += max(config.steps // config.validations, 1)
            slates, earned = self._sampled(number)
            loss, moved = self._update(slates, config.learning_rate * (1 - steps / config.steps))
            number, steps = number + 1, steps + len(slates.advantage)
            for tag, value in ((LOSS_TAG, loss), ("train/kl", moved), ("train/return", earned)):
                log(tag, value, steps)
            bar.update(len(slates.advantage))
        found = self.validation.trial(self.policy)
        self.options.validated(self.policy, found.value, steps)
        if found.rank <= best:
            with torch.no_grad():
                for weight, held in zip(self.weights, kept, strict=True):
                    weight.copy_(held)
        bar.close()
        self.policy.name = GRPO.name
        return self.policy

    @torch.no_grad()
    def _sampled(self, number: int) -> tuple[_Slates, float]:
        """Sessions of new users, G of each, and their mean reward."""
        core, config = self.core, self.config
        users = number * config.users + torch.arange(config.users, device=core.device)
        core.reset(lanes=users.repeat_interleave(config.group))
        kept: dict[str, list[Tensor]] = {}

        def act(core: Core, carry: None) -> Picked:
            seen = core.observe()
            mask = action_mask(seen, core.empty)
            scores = self.tunable.logits(seen)
            items = best_of(scores, min(config.candidates or core.empty, core.empty), mask).rows
            scores, allowed = self._among(scores, items)
            noise = torch.rand(scores.shape, generator=self.draws, device=scores.device).clamp_min(1e-20)
            positions = sample(scores, allowed, min(core.slate_size, scores.shape[1]), -torch.log(-torch.log(noise)))
            reference, _ = self._among(self.reference.logits(seen), items)
            told = {
                **{key: seen[key].clone() for key in self.tunable.reads},
                "items": items,
                "positions": positions,
                "log_prob": log_prob(scores, allowed, positions),
                "reference": log_prob(reference, allowed, positions),
            }
            for key, value in told.items():
                kept.setdefault(key, []).append(value)
            return Picked(items.gather(1, positions).masked_fill(~allowed.gather(1, positions), core.empty))

        rewards, alive = [], []
        for step in rollout(core, act):
            rewards.append(step.transition.reward * step.alive)
            alive.append(step.alive)
        reward, counted = torch.stack(rewards), torch.stack(alive)
        worth = advantages(reward, counted, config.group, config.gamma, config.credit == "whole")
        flat = {key: torch.stack(values)[counted] for key, values in kept.items()}
        seen = {key: flat[key] for key in self.tunable.reads}
        sampled = _Slates(seen, flat["items"], flat["positions"], flat["log_prob"], flat["reference"], worth[counted])
        return sampled, float(reward.sum(0).mean())

    def _update(self, slates: _Slates, rate: float) -> tuple[float, float]:
        """Passes over what was sampled; the mean loss and divergence from the start."""
        config, told = self.config, []
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        for _ in range(config.epochs):
            for rows in shuffled(len(slates.advantage), config.batch_size, self.draws):
                items, positions = slates.items[rows], slates.positions[rows]
                seen = {key: value[rows] for key, value in slates.seen.items()}
                now = log_prob(*self._among(self.tunable.logits(seen), items), positions)
                ratio, advantage = (now - slates.log_prob[rows]).exp(), slates.advantage[rows]
                gain = torch.minimum(ratio * advantage, ratio.clamp(1 - config.clip, 1 + config.clip) * advantage)
                behind = slates.reference[rows] - now
                divergence = behind.exp() - behind - 1
                loss = (config.kl * divergence - gain).mean()
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(self.weights, config.max_grad_norm)
                self.optimizer.step()
                told.append(torch.stack([loss.detach(), divergence.detach().mean()]))
        loss_mean, moved = torch.stack(told).mean(0).tolist()
        if not math.isfinite(loss_mean):
            raise PolicyError(f"grpo: the loss is {loss_mean}; lower learning_rate ({config.learning_rate})")
        return loss_mean, moved

    def _among(self, scores: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B, C) of the candidates by temperature, and which of them are items, bool (B, C)."""
        allowed = items < scores.shape[1]
        found = scores.gather(1, items.clamp_max(scores.shape[1] - 1)) / self.config.temperature
        return found.masked_fill(~allowed, FORBIDDEN), allowed

    def _copy(self) -> Sequence[Tensor]:
        return [weight.detach().clone() for weight in self.weights]


def advantages(reward: Tensor, counted: Tensor, group: int, gamma: float, whole: bool) -> Tensor:
    """How much better each slate went than the same slate of the other sessions of its group, float32 (T, B).

    Args:
        reward: float32 (T, B), 0 after a session's end; G neighbouring lanes are a group.
        counted: bool (T, B) slates that were shown before the session's end.
        group: G.
        gamma: discount a slate.
        whole: every slate of a session gets the session's own.
    """
    after = torch.zeros_like(reward)
    running = torch.zeros_like(reward[0])
    for step in range(len(reward) - 1, -1, -1):
        running = reward[step] + gamma * running
        after[step] = running
    if whole:
        after = after[:1].repeat(len(after), 1)
    grouped, there = after.view(len(after), -1, group), counted.view(len(after), -1, group).to(after)
    count = there.sum(2, keepdim=True).clamp_min(1)
    mean = (grouped * there).sum(2, keepdim=True) / count
    spread = (((grouped - mean) * there).square().sum(2, keepdim=True) / count).sqrt()
    return ((grouped - mean) / (spread + 1e-6) * (spread > 1e-6) * there).view_as(after)


def _unheard(tag: str, value: float, step: int) -> None:
    """Takes curves that nobody asked for."""
