"""One loop trains every learner of ours: act `horizon` times in all lanes, learn from it, and so on.

from recloop.agents.learners.loop import learn
from recloop.agents.learners.on_policy.ppo import PPO, PPOConfig
policy = learn(PPO, world, FitOptions(steps=200_000, checkpoint=Path("checkpoints/ppo")), PPOConfig(num_envs=128))
"""

import copy
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from recloop.agents.configs import AgentConfig
from recloop.agents.learners.checkpoints import Checkpoint, flattened, load_checkpoint, rebuilt
from recloop.agents.learners.contract import Learner, Step, Task
from recloop.agents.networks.features import ItemTables
from recloop.agents.networks.policy import refuse_to_hear, wishes_of
from recloop.agents.policy import FitOptions, Policy
from recloop.agents.serving import Serving
from recloop.agents.validation import PolicyValidation
from recloop.encoders.base.errors import PolicyError
from recloop.encoders.base.progress import progress_bar
from recloop.encoders.base.storage import json_like
from recloop.envs.interaction.floors import FlooredReward
from recloop.envs.interaction.observation import Observation
from recloop.envs.interaction.randomness import Draw
from recloop.envs.simulation.actions import EncoderRetriever
from recloop.envs.simulation.ahead.branches import Branches
from recloop.envs.simulation.ahead.expected_step import expected_step
from recloop.envs.simulation.core import Core
from recloop.envs.simulation.penalties import training_reward
from recloop.envs.world.world import World

LOSS_TAG = "train/loss"

_LOOKS = 200
"""How often a training looks at its numbers at most: each look waits for the device."""

_OWN_LUCK = 602_214
"""Added to the seed for the learner's own draws, apart from those of the users."""

_OTHER_LUCK = 141_421
"""Added to the seed for the users' luck in what is tried ahead of a step."""


def learn(kind: type[Learner], world: World, options: FitOptions, config: AgentConfig | None = None) -> Policy:
    """Train a learner on the train users of a world, in its training simulator.

    The weights kept are those with the best mean return in the validation simulator. One seed, device and number of
    threads give equal weights, interrupted or not; global random generators are left as they were.

    Args:
        kind: the class of the learner.
        world: where to train.
        options: `steps` and `settings` replace the config's; steps are rounded up to whole updates. With `checkpoint`,
            an interrupted training goes on from there.
        config: of the class `kind.config_class`; default its defaults.

    Raises:
        PolicyError: a config of another learner, too few steps to learn anything, a checkpoint of another training, a
            loss that is not a number, or more lanes than fit into memory.
        KeyboardInterrupt: with a sentence on what was kept.
    """
    config = config or kind.config_class()
    if not isinstance(config, kind.config_class):
        raise PolicyError(f"{kind.name} takes a {kind.config_class.__name__}, not a {type(config).__name__}")
    config = options.over(config, kind.name)
    waits = getattr(config, "learning_starts", 0)
    if waits >= config.steps:
        raise PolicyError(
            f"{kind.name} learns after learning_starts={waits} steps, and steps={config.steps} end before; raise steps"
        )
    with _told_of_memory(kind.name, config.num_envs, torch.device(options.device)):
        return Training(kind, world, options, config).run()


@dataclass
class _Best:
    """The best weights so far, and where they were found."""

    rank: tuple[float, float] = (-math.inf, -math.inf)
    step: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)


class Training:
    """A learner, the lanes it learns in, and what is watched meanwhile.

    Args: as of `learn`.

    Attributes:
        updates: how many are done.
        total: how many there will be.
    """

    def __init__(self, kind: type[Learner], world: World, options: FitOptions, config: AgentConfig) -> None:
        self.world, self.options, self.config = world, options, config
        self.reward = training_reward(world, options.penalties, options.device)
        self.core = Core(
            world,
            batch=config.num_envs,
            users="train",
            seed=options.seed,
            reward=self.reward,
            device=options.device,
            compile=options.compile,
        )
        self.wishes = _wishes(kind, world, config)
        self.retriever = None
        if kind.chooses_candidates:
            self.retriever = EncoderRetriever(world.state_encoder, config.candidates, self.wishes)
        self.core.keys = _keys(kind, world, self.wishes is not None)
        self.learner = kind(self._task(), config)
        self.policy = self.learner.policy()
        self.validation = PolicyValidation(
            world, config.validation_episodes, options.device, floor=options.penalties.held
        )
        self.episodes = Episodes(config.num_envs, self.core.device)
        self.best = _Best()
        self.updates, self.kept = 0, 0
        self.total = math.ceil(config.steps / self._steps(1))
        self.broken = torch.tensor(-1, device=self.core.device)  # the update whose loss was no number
        self._next_validation = 0
        self._go_on()

    def run(self) -> Policy:
        """Train to the end; the policy with the best weights."""
        name, options = self.learner.name, self.options
        bar = progress_bar(
            total=self.total, initial=self.updates, desc=name, unit="update", disable=not options.progress
        )
        look = max(self.total // _LOOKS, 1)
        seen = self._observed()
        with self._told_of_interruption(), bar:
            while self.updates < self.total:
                self._validate_when_due(bar)
                seen = self._collect(seen)
                scalars = self.learner.update(self.updates / self.total)
                self._watch(scalars)
                self.updates += 1
                bar.update()
                if self.updates % look == 0 or self.updates == self.total:
                    self._look(scalars)
                if options.checkpoint is not None and self.updates % options.checkpoint_every == 0:
                    self._check_numbers()
                    self._keep()
            self._validate(bar)
            if options.checkpoint is not None:
                self._keep()
        floor = self.validation.floor
        if floor is not None and not self.best.rank[0]:
            warnings.warn(
                f"{name}: nothing it learned gives {floor.of} {floor.least:g} in validation; the policy nearest to it "
                "is kept. Train longer, or lower the floor",
                stacklevel=2,
            )
        restored = type(self.policy).restore(self.policy._serving(), self.policy.config(), self.best.weights)
        restored.name, restored.serving = self.learner.name, self.policy.serving
        return restored

    @torch.no_grad()
    def _collect(self, seen: Observation) -> Observation:
        """`horizon` steps of every lane; what is seen after them."""
        core, learner = self.core, self.learner
        for _ in range(learner.horizon):
            draw = Draw.at(self.options.seed + _OWN_LUCK, core.lanes, core.episode, core.past.step)
            acted = learner.act(seen, draw)
            expected = expected_step(core, acted.slate) if learner.wants_expected else None
            step = core.step(acted.slate) if expected is None else expected.drawn
            after = self._completed(step.next_observation) if learner.values_candidates else step.next_observation
            if step.mended is not None:  # a place that rules filled teaches nothing of what was chosen
                kept = acted.slate.masked_fill(acted.slate != step.slate, core.empty)
                acted = replace(acted, slate=kept)
            ended = (step.terminated, step.truncated)
            learner.keep(Step(seen, acted, step.response, step.reward, *ended, after, expected))
            self.episodes.add(step.reward, step.terminated | step.truncated)
            seen = self._observed()
        return seen

    def _task(self) -> Task:
        world, core = self.world, self.core
        return Task(
            serving=Serving.of(world, copy.deepcopy(world.user_model) if self.config.plans_on_user_model else None),
            tables=ItemTables.of(core.encoder, world.catalogue.popularity, self.wishes),
            spec=core.spec,
            lanes=core.batch,
            seed=self.options.seed,
            device=core.device,
            retriever=self.retriever,
            compile=self.options.compile,
            branches=lambda size: Branches(core, size, self.options.seed + _OTHER_LUCK),
        )

    def _steps(self, updates: int) -> int:
        """Environment steps over all lanes in so many updates."""
        return updates * self.learner.horizon * self.core.batch

    def _observed(self) -> Observation:
        return self._completed(self.core.observe())

    def _completed(self, observation: Observation) -> Observation:
        """With the candidates that the learner chooses among."""
        if self.retriever is None:
            return observation
        return {**observation, "candidates": self.retriever.candidates(observation)}

    def _validate_when_due(self, bar: Any) -> None:
        if self._steps(self.updates) >= self._next_validation:
            self._validate(bar)
            self._next_validation += max(self.config.steps // self.config.validations, 1)

    def _validate(self, bar: Any) -> None:
        self._check_numbers()
        found, step = self.validation.trial(self.policy), self._steps(self.updates)
        self.options.validated(self.policy, found.value, step)
        bar.set_postfix({"return": f"{found.value:.3f}"})
        if found.rank > self.best.rank or not self.best.weights:
            weights = {name: value.detach().clone() for name, value in self.policy.tensors().items()}
            self.best = _Best(found.rank, step, weights)

    def _watch(self, scalars: dict[str, Tensor]) -> None:
        """Remember on the device which update first had a loss that is not a number."""
        if LOSS_TAG in scalars:
            broke = ~torch.isfinite(scalars[LOSS_TAG]) & (self.broken < 0)
            self.broken = torch.where(broke, self.updates + 1, self.broken)

    def _look(self, scalars: dict[str, Tensor]) -> None:
        """Bring the numbers to the host: check them, and log them."""
        self._check_numbers()
        told = {**scalars, **self.episodes.means()}
        if self.options.log is None:
            return
        values = torch.stack([value.detach().to(self.core.device, torch.float64) for value in told.values()]).tolist()
        for tag, value in zip(told, values, strict=True):
            if math.isfinite(value):
                self.options.log(tag, value, self._steps(self.updates))

    def _check_numbers(self) -> None:
        """Stop where a loss or a weight is no longer a number; the last good checkpoint stays."""
        broken = int(self.broken)
        weights = all(bool(torch.isfinite(value).all()) for value in self.policy.tensors().values())
        if broken < 0 and weights:
            return
        update = broken if broken > 0 else self.updates
        what = f"the loss ({LOSS_TAG})" if broken > 0 else "a weight of the policy"
        kept = f"; {self.options.checkpoint} holds the weights before it" if self.kept else ""
        raise PolicyError(
            f"{self.learner.name}: {what} is no longer a finite number after update {update}, step "
            f"{self._steps(update)}; lower learning_rate ({self.config.learning_rate}) or check the reward{kept}"
        )

    def _facts(self) -> dict[str, Any]:
        """What a checkpoint must share with a training that goes on from it."""
        return {
            "learner": self.learner.name,
            "config": self.config.as_dict(),
            "seed": self.options.seed,
            "penalties": json_like(asdict(self.options.penalties)),
            "world": self.world.fingerprint,
            "reward": json_like(self.world.reward.as_dict()),
            "rules": json_like(self.world.rules.as_dict()),
            "simulator": [self.world.training_simulator, type(self.core.simulator).__qualname__],
            "device": torch.device(self.options.device).type,
        }

    def _keep(self) -> None:
        """Write a checkpoint."""
        assert self.options.checkpoint is not None
        counters = {
            "updates": self.updates,
            "next_validation": self._next_validation,
            "best": None if not self.best.weights else [list(self.best.rank), self.best.step],
        }
        parts = {
            "learner": self.learner.state(),
            "core": flattened(self.core.snapshot()),
            "episodes": self.episodes.state(),
            "best": self.best.weights,
        }
        if isinstance(self.reward, FlooredReward):
            parts["floor"] = self.reward.state()
        Checkpoint(self._facts(), counters, parts).save(self.options.checkpoint)
        self.kept = self.updates

    def _go_on(self) -> None:
        """Take up what a checkpoint holds, where there is one."""
        if self.options.checkpoint is None:
            return
        snapshot = self.core.snapshot()
        flattened(snapshot)  # refused now rather than at the first checkpoint
        found = load_checkpoint(self.options.checkpoint, self._facts())
        if found is None:
            return
        self.core.resume(rebuilt(snapshot, found.parts["core"]))
        self.learner.restore(found.parts["learner"])
        self.episodes.restore(found.parts["episodes"])
        self.updates = self.kept = int(found.counters["updates"])
        self._next_validation = int(found.counters["next_validation"])
        if found.counters["best"] is not None:
            rank, step = found.counters["best"]
            here = {name: tensor.to(self.core.device) for name, tensor in found.parts["best"].items()}
            self.best = _Best((float(rank[0]), float(rank[1])), int(step), here)
        if isinstance(self.reward, FlooredReward):
            self.reward.restore(found.parts["floor"])
        if self.options.resumed is not None:
            self.options.resumed(self._steps(self.updates))

    @contextmanager
    def _told_of_interruption(self) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            folder = self.options.checkpoint
            kept = (
                "nothing is kept; give --checkpoint FOLDER"
                if folder is None
                else f"{self.kept} of {self.total} updates are kept in {folder}, the same command goes on from there"
            )
            raise KeyboardInterrupt(f"interrupted after update {self.updates} of {self.total}; {kept}") from None


def _wishes(kind: type[Learner], world: World, config: AgentConfig) -> Tensor | None:
    """What instructions are held against, for a learner that is to hear them; None for others."""
    if not kind.may_hear:
        refuse_to_hear(kind.name, config.network)
    return wishes_of(world, config.network)


def _keys(kind: type[Learner], world: World, hears: bool) -> tuple[str, ...]:
    """What a learner observes, and what its retriever reads."""
    wanted = dict.fromkeys(kind.keys)
    if hears:
        wanted["instruction"] = None
    if kind.chooses_candidates:
        wanted.update(dict.fromkeys(EncoderRetriever.needs))
    if world.spec().profile_dim:
        wanted["profile"] = None
    if world.masks_items:
        wanted["action_mask"] = None
    return tuple(wanted)


@contextmanager
def _told_of_memory(name: str, lanes: int, device: torch.device) -> Iterator[None]:
    """Out of memory in one line that says how many lanes to try."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _too_many_lanes(name, lanes, device) from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        raise _too_many_lanes(name, lanes, device) from error


def _too_many_lanes(name: str, lanes: int, device: torch.device) -> PolicyError:
    fits = max(lanes // 2, 1)
    room = ""
    if device.type == "cuda":
        free, whole = torch.cuda.mem_get_info(device)
        needed = max(torch.cuda.max_memory_allocated(device), 1)
        while fits > 1 and needed * fits / lanes > 0.9 * whole:
            fits //= 2
        room = f" ({whole / 2**30:.1f} GiB, {free / 2**30:.1f} free)"
    return PolicyError(
        f"{name}: {lanes} lanes do not fit into the memory of {device}{room}; try {fits} lanes, or fewer candidates"
    )


class Episodes:
    """Sums of rewards and steps of the running episodes, and of those that ended since somebody last asked.

    Args:
        lanes: B.
        device: of the lanes.
    """

    def __init__(self, lanes: int, device: torch.device) -> None:
        self.running = torch.zeros(2, lanes, dtype=torch.float64, device=device)  # rewards and steps
        self.ended = torch.zeros(3, dtype=torch.float64, device=device)  # rewards, steps, episodes

    def add(self, reward: Tensor, done: Tensor) -> None:
        """Count one step of every lane: reward and whether its episode ended, (B,)."""
        self.running[0] += reward
        self.running[1] += 1
        over = self.running * done
        self.ended[:2] += over.sum(1)
        self.ended[2] += done.sum()
        self.running -= over

    def means(self) -> dict[str, Tensor]:
        """Mean return and length by tag, NaN where no episode ended; starts counting anew."""
        rewards, steps, count = self.ended.clone()
        self.ended.zero_()
        return {"rollout/ep_rew_mean": rewards / count, "rollout/ep_len_mean": steps / count}

    def state(self) -> dict[str, Tensor]:
        """See `restore`."""
        return {"running": self.running, "ended": self.ended}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Undo `state`."""
        self.running.copy_(state["running"])
        self.ended.copy_(state["ended"])
