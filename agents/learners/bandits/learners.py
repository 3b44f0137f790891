"""The four bandits as learners: they show slates by their index and add what came of it to one posterior."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from recloop.agents.configs import AgentConfig
from recloop.agents.facts import Group
from recloop.agents.isolation import isolated_randomness
from recloop.agents.learners.bandits.features import Arms
from recloop.agents.learners.bandits.policy import BanditModel, BanditPolicy, Choice, Online, Rule
from recloop.agents.learners.bandits.posterior import RidgePosterior
from recloop.agents.learners.checkpoints import flattened, restore_module, within
from recloop.agents.learners.contract import ActionSample, Learner, Step, Task
from recloop.agents.learners.off_policy.replay import Layout, Replay
from recloop.agents.learners.returns import PlaceRewards
from recloop.agents.networks.features import FEATURE_KEYS, NetworkConfig
from recloop.encoders.base.errors import PolicyError
from recloop.encoders.base.fit import optimizer_state, restore_optimizer
from recloop.envs.interaction.observation import Observation
from recloop.envs.interaction.randomness import Draw


@dataclass(frozen=True)
class BanditConfig(AgentConfig):
    """What bandits share; `learning_rate`, `max_grad_norm` and `network` are of `neural-thompson` alone, `gamma` of
    none.

    Args:
        components: r, principal components of items, and coordinates of users, that features are made of.
        ridge: precision of the weights' prior.
        epsilon: chance with which `epsilon-greedy` gives a place to an item drawn uniformly.
        width: how far the others explore: standard deviations in the bound of `linucb`, or what those of the posterior
            are multiplied with before weights are drawn.
        online: whether the trained policy goes on learning while it is evaluated: `no`, it shows what it expects most
            of; `lane`, each lane from what was trained, by itself; `shared`, all lanes as one. It then explores as in
            training.
        max_grad_norm: longest gradient step.
    """

    steps: int = 50_000
    num_envs: int = 256
    components: int = 8
    ridge: float = 1.0
    epsilon: float = 0.1
    width: float = 1.0
    online: Online = "no"
    max_grad_norm: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.components < 1:
            raise PolicyError(f"components={self.components}; it must be at least 1")
        if not 0 < self.ridge < float("inf"):
            raise PolicyError(f"ridge={self.ridge}; it must be finite and above 0")
        Choice("mean", self.epsilon, self.width, self.online)  # checks the rest


class BanditLearner(Learner):
    """Ridge regression of what each item of a slate earned, and an index that says which items are worth a try.

    One posterior for all users, whose differences are in the features; all lanes of a step choose by the same one and
    teach it together. What a slate does to later ones counts nothing.

    Attributes:
        rule: by which index it chooses.
    """

    rule: ClassVar[Rule]
    group: ClassVar[Group] = "bandit"
    config_class: ClassVar[type[AgentConfig]] = BanditConfig
    policy_class = BanditPolicy
    keys = FEATURE_KEYS
    chooses_candidates = True
    config: BanditConfig

    def __init__(self, task: Task, config: BanditConfig) -> None:
        super().__init__(task, config)
        assert task.retriever is not None
        self.retriever, self.horizon = task.retriever, 1
        self.empty, self.slate_size = task.spec.catalogue_size, task.spec.slate_size
        if self.retriever.size < self.slate_size:
            raise PolicyError(
                f"candidates={self.retriever.size} is smaller than slate_size={self.slate_size}; raise candidates"
            )
        self.choice = Choice(self.rule, config.epsilon, config.width, config.online)
        self.sizes: dict[str, Any] = {"components": config.components, "ridge": config.ridge, "hidden": self._hidden()}
        with isolated_randomness(task.seed):
            self.model = BanditModel(task.tables, task.spec, **self.sizes).to(task.device)
        self._by_place = PlaceRewards(task.serving.world, task.device)
        self._belief = self.model.posterior.belief()
        self._missed = torch.zeros((), device=task.device)

    @torch.no_grad()
    def act(self, seen: Observation, draw: Draw) -> ActionSample:
        """The items of the highest index."""
        arms = self.model.features(seen)
        read = Arms(arms.items, arms.mask, self.model.read(arms.x))
        positions = self.choice.positions(self._belief, read, self.slate_size, draw, explores=True)
        slate = arms.items.gather(1, positions).masked_fill(~arms.mask.gather(1, positions), self.empty)
        return ActionSample(slate, {"x": arms.x.gather(1, positions.unsqueeze(2).expand(-1, -1, arms.x.shape[2]))})

    @torch.no_grad()
    def keep(self, step: Step) -> None:
        """Add what each place earned to the posterior."""
        slate = step.acted.slate
        x, held = self.model.read(step.acted.extra["x"]), (slate < self.empty).float()
        reward = self._by_place.shared(slate, step.response, step.reward)
        off = (self._belief.expected(x) - reward) * held
        self._missed = off.square().sum() / held.sum().clamp_min(1)
        self.model.take(self.model.posterior.told(x, reward, held))

    @torch.no_grad()
    def update(self, progress: float) -> dict[str, Tensor]:
        """Work out the belief anew; the loss is the mean squared miss of the step before it was learned from."""
        self._belief = self.model.posterior.belief()
        return {"train/loss": self._missed, "train/noise": self._belief.noise[0].float()}

    def policy(self) -> BanditPolicy:
        """The highest means; or its own index, where it is asked to go on learning."""
        return BanditPolicy(
            self.task.serving,
            self.model,
            self.choice,
            self.sizes,
            candidates=self.retriever.size,
            training={"agent": self.name, "seed": self.task.seed, **self.config.as_dict()},
            name=self.name,
        )

    def state(self) -> dict[str, Tensor]:
        """The model; the belief follows from it."""
        return flattened({"model": self.model.state_dict()})

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `Learner`."""
        restore_module(self.model, within(state, "model"))
        self._belief = self.model.posterior.belief()

    def _hidden(self) -> int:
        """Units of the network between features and regression; 0 for none."""
        return 0


class EpsilonGreedy(BanditLearner):
    """The K highest means; with chance `epsilon` a place is given to an item drawn uniformly."""

    name = "epsilon-greedy"
    rule = "epsilon-greedy"


class LinUCB(BanditLearner):
    """Upper confidence bounds of a linear model (Li, Chu, Langford and Schapire, WWW 2010).

    Differences: one model over features of user and item (the shared part of the paper's hybrid) instead of one an
    article, so that an item that was never shown has a bound too; the bound is in units of the rewards' noise as
    estimated, so that `width` does not depend on the reward's unit; a slate is the K highest bounds (CombLinUCB, Wen et
    al. 2015); lanes choose at the same time by the same bounds.
    """

    name = "linucb"
    paper: ClassVar[str] = "Li et al. 2010"
    rule = "upper-bound"


class LinearThompson(BanditLearner):
    """Thompson sampling with linear payoffs (Agrawal and Goyal, ICML 2013).

    Differences: the standard deviation of the draw is `width` times that of the posterior with the noise as estimated,
    instead of the paper's bound, which is far wider; a slate is the K best by one draw a lane and step (CombLinTS, Wen
    et al. 2015).
    """

    name = "linear-thompson"
    paper: ClassVar[str] = "Agrawal and Goyal 2013"
    rule = "thompson"


@dataclass(frozen=True)
class NeuralThompsonConfig(BanditConfig):
    """Neural-linear Thompson sampling; see `NeuralThompson`.

    Args:
        buffer_size: slates kept, which network and posterior are fitted on.
        batch_size: slates a gradient step.
        refit_every: steps a lane between two fits of the network.
        updates: gradient steps a fit.
        network: of it, `hidden` alone counts.
    """

    learning_rate: float = 1e-3
    buffer_size: int = 30_000
    batch_size: int = 256
    refit_every: int = 10
    updates: int = 50
    network: NetworkConfig = field(default_factory=NetworkConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("buffer_size", "batch_size", "refit_every", "updates"):
            if getattr(self, name) < 1:
                raise PolicyError(f"{name}={getattr(self, name)}; it must be at least 1")


class NeuralThompson(BanditLearner):
    """Neural-linear Thompson sampling (Riquelme, Tucker and Snoek, ICLR 2018).

    A network learns what an item earns; the regression reads its last hidden layer. Every `refit_every` steps the
    network takes `updates` gradient steps and the posterior is worked out anew from all that is kept. Differences: the
    noise is the posterior's estimate instead of a draw; slates as in `LinearThompson`.
    """

    name = "neural-thompson"
    paper: ClassVar[str] = "Riquelme et al. 2018"
    rule = "thompson"
    config_class: ClassVar[type[AgentConfig]] = NeuralThompsonConfig
    config: NeuralThompsonConfig

    def __init__(self, task: Task, config: NeuralThompsonConfig) -> None:
        super().__init__(task, config)
        assert self.model.net is not None
        with isolated_randomness(task.seed):
            self.head = nn.Linear(config.network.hidden + 1, 1).to(task.device)
        self._parameters = [*self.model.net.parameters(), *self.head.parameters()]
        self._optimizer = torch.optim.Adam(self._parameters, lr=config.learning_rate, fused=True)
        k = self.slate_size
        places: Layout = {name: ((k,), torch.float32) for name in ("reward", "held")}
        layout: Layout = {"x": ((k, self.model.features.size), torch.float32), **places}
        self.replay = Replay(task, config.buffer_size, (), extra=layout)
        self._steps = torch.zeros((), dtype=torch.int64)  # on the host

    @torch.no_grad()
    def keep(self, step: Step) -> None:
        """Add it to the posterior, and to what network and posterior are fitted on."""
        super().keep(step)
        slate = step.acted.slate
        reward = self._by_place.shared(slate, step.response, step.reward)
        self.replay.keep(step, {**step.acted.extra, "reward": reward, "held": (slate < self.empty).float()})
        self._steps += 1

    def update(self, progress: float) -> dict[str, Tensor]:
        """Fit the network now and then."""
        if self._steps % self.config.refit_every == 0 and self.replay.ready:
            self._fit()
        return super().update(progress)

    def state(self) -> dict[str, Tensor]:
        """Model, head, optimizer and what is kept."""
        parts: dict[str, Any] = {"head": self.head.state_dict(), "optimizer": optimizer_state(self._optimizer)}
        return {**super().state(), **flattened({**parts, "replay": self.replay.state()}), "steps": self._steps}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `Learner`."""
        super().restore(state)
        restore_module(self.head, within(state, "head"))
        restore_optimizer(self._optimizer, within(state, "optimizer"))
        self.replay.restore(within(state, "replay"))
        self._steps.copy_(state["steps"])

    def _hidden(self) -> int:
        return self.config.network.hidden

    def _fit(self) -> None:
        """Gradient steps on slates drawn from those kept, then the posterior of all that are."""
        for _ in range(self.config.updates):
            drawn = self.replay.sample(self.config.batch_size).extra
            off = (self.head(self.model.read(drawn["x"]))[..., 0] - drawn["reward"]) * drawn["held"]
            self._optimizer.zero_grad(set_to_none=True)
            loss = off.square().sum() / drawn["held"].sum().clamp_min(1)
            loss.backward()
            nn.utils.clip_grad_norm_(self._parameters, self.config.max_grad_norm, foreach=True)
            self._optimizer.step()
        with torch.no_grad():
            posterior = RidgePosterior.prior(self.config.network.hidden + 1, self.config.ridge, self.task.device)
            for x, reward, held in zip(*(self.replay.held(name) for name in ("x", "reward", "held")), strict=True):
                posterior = posterior.told(self.model.read(x), reward, held)
            self.model.take(posterior)
