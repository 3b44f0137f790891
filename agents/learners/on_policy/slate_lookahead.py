"""PPO over whole slates that tries several of them ahead before it shows one."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from recloop.agents.learners.contract import ActionSample, Task
from recloop.agents.learners.on_policy.slate_ppo import ProposalPPO, ProposalPPOConfig
from recloop.agents.networks.proposals import chosen
from recloop.agents.slates import FORBIDDEN
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.observation import Observation
from recloop.envs.interaction.randomness import Draw
from recloop.envs.simulation.ahead.expected_step import expected_step


@dataclass(frozen=True)
class LookaheadConfig(ProposalPPOConfig):
    """`slate-ppo` with slates tried ahead.

    Args:
        tries: proposals tried at every step of every lane.
        depth: slates that a try looks ahead, itself included; what comes after is the value network's guess.
    """

    steps: int = 30_000
    tries: int = 4
    depth: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("tries", 2), ("depth", 1)):
            if getattr(self, name) < least:
                raise PolicyError(f"{name}={getattr(self, name)}; it must be at least {least}")


class SlateLookahead(ProposalPPO):
    """Rollout policy improvement over slates that hang together, amortised in `slate-ppo`'s network.

    At every step of a lane, `tries` different proposals are drawn from the policy and each is shown to a copy of the
    lane, all under one luck that is not the lane's own. The copy goes on with the policy's most likely slates; what is
    expected of `depth` slates, and the value network's guess of the rest, is what the proposal is worth there:

        loss = - sum over tries of share x min(ratio x gain, clipped ratio x gain) + ...

    with `share` the policy's odds among the tries, and `gain` what a try is worth beyond their mean by these odds. The
    rest of the loss is that of PPO, and so is the trained policy: it needs nobody to copy. Related: rollouts
    (Bertsekas, Tsitsiklis and Wu 1997), expert iteration (Anthony, Tian and Barber 2017), sampled MuZero (Hubert et al.
    2021). Differences: no tree; the tries weigh in a policy gradient instead of being imitated, which users' hidden
    moods would blur.
    """

    name = "slate-lookahead"
    paper = "Anthony et al. 2017"
    config_class = LookaheadConfig
    config: LookaheadConfig

    def __init__(self, task: Task, config: LookaheadConfig) -> None:
        super().__init__(task, config)
        self.tries = min(config.tries, len(self.networks.owner))
        assert task.branches is not None
        self.branches = task.branches(task.lanes * self.tries)
        self.rows = torch.arange(task.lanes, device=task.device).repeat_interleave(self.tries)

    @torch.no_grad()
    def act(self, seen: Observation, draw: Draw) -> ActionSample:
        """A proposal drawn from the softmax, and what it and others are worth by looking ahead."""
        proposals, slates = self.networks.propose(seen, self.task.spec.slate_size)
        scores, value = self.networks(proposals)
        every = torch.arange(scores.shape[1], device=scores.device).expand(scores.shape)
        noisy = (scores + draw.gumbel("slate", every)).masked_fill(~proposals.there, FORBIDDEN)
        tried = noisy.topk(self.tries, dim=1).indices  # (B, tries), the first is shown
        worth = self._worth(slates.gather(1, tried.unsqueeze(2).expand(-1, -1, slates.shape[2])))
        logs = scores.log_softmax(1).gather(1, tried)
        extra = {"positions": tried, "log_prob": logs, "value": value, "worth": worth}
        return ActionSample(chosen(slates, tried[:, 0]), {**extra, **proposals.held()})

    def _worth(self, slates: Tensor) -> Tensor:
        """What slates (B, tries, K) are worth by looking ahead, (B, tries), in the scale of rewards."""
        config, core = self.config, self.branches.core
        self.branches.stand(self.rows)
        slate = slates.flatten(0, 1)
        total, weight = torch.zeros(2, len(slate), device=slate.device)
        weight = weight + 1
        for left in range(config.depth - 1, -1, -1):
            step = expected_step(core, slate)
            reward = self.scale.scaled(step.reward) if config.scale_rewards else step.reward
            over = step.drawn.terminated | step.drawn.truncated | (left == 0)
            discount = config.gamma * step.stays
            value = self._values_after(self._completed(step.drawn.next_observation), over)
            total = total + weight * (reward + discount * value * over)
            weight = weight * discount * ~over
            if left:  # lanes that ended have another user by now, who counts nothing
                proposals, nexts = self.networks.propose(self._completed(core.observe()), slates.shape[2])
                slate = chosen(nexts, self.networks(proposals)[0].argmax(1))
        worth: Tensor = total.view(slates.shape[:2])
        return worth

    def _completed(self, after: Observation) -> Observation:
        """With candidates: all items as they are, where the retriever would sort them all."""
        n = self.networks.empty
        if self.retriever.size < n or "action_mask" in after:
            return {**after, "candidates": self.retriever.candidates(after)}
        return {**after, "candidates": torch.arange(n, device=self.task.device).expand(len(after["state"]), -1)}

    def _kept(self) -> dict[str, Tensor]:
        return {**super()._kept(), "worth": self.rollout.flat("worth")}

    def _gain(self, scores: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        old, worth = batch["log_prob"], batch["worth"]
        share = old.softmax(1)
        gain = worth - (share * worth).sum(1, keepdim=True)
        gain = gain / ((share * gain.square()).sum(1).mean().sqrt() + 1e-8)
        logs = scores.log_softmax(1)
        change = logs.gather(1, batch["positions"]) - old
        ratio = change.exp()
        clipped = ratio.clamp(1 - self.config.clip, 1 + self.config.clip)
        entropy = -(logs.exp() * logs).sum(1)
        return (share * torch.minimum(ratio * gain, clipped * gain)).sum(1).mean(), change, entropy
