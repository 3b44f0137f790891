"""The contract all policies share: RL agents, supervised recommenders, a person's own class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from recloop.agents.asking import asked
from recloop.agents.facts import PolicyFacts
from recloop.agents.observed import Observed
from recloop.agents.serving import Exclude, Serving
from recloop.agents.settings import Config, with_settings
from recloop.agents.slates import action_mask, best_slate
from recloop.encoders.base.anchors import Anchor
from recloop.encoders.base.described import Described
from recloop.encoders.base.errors import PolicyError
from recloop.encoders.base.storage import replacing_folder, write_json, write_tensors
from recloop.envs.interaction.observation import Observation
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.ruled_slates import RuledSlates
from recloop.envs.interaction.rules import Rules
from recloop.envs.interaction.transition import Transition
from recloop.envs.simulation.penalties import PenaltyConfig
from recloop.envs.simulation.rollout import Learn
from recloop.envs.world.world import World

Carry = Any
"""What a policy keeps of a lane between two steps; None at the start of an episode."""

SHORTLIST = 50
"""Items nearest to an instruction among which a policy that does not read instructions chooses."""

RANKED = 5
"""Slates whose items are looked through for one that keeps the rules of whole slates."""

VALIDATION_TAG = "validation/return"
"""Training curve of what a policy is worth on the users it is validated on."""

FORMAT = 2
"""Version of the policy folder's layout; a newer one is refused. Since 2 a folder has a manifest."""


@dataclass(frozen=True)
class FitOptions:
    """How a policy is made for a world.

    Args:
        seed: of all randomness in training.
        steps: training budget in the learner's own unit (environment steps for RL agents, passes over the train
            users for supervised recommenders); None for its default.
        device: any torch device to train on.
        progress: show a progress bar.
        penalties: what an RL agent's training steps are charged and given on top of the reward.
        log: takes (tag, value, step) of training curves; None drops them.
        watch: values by tag of a policy as it stands, asked whenever a policy that trains in the loop is validated, and
            logged; nothing is chosen by them.
        checkpoint: folder where a learner of ours keeps its training, and goes on from after an interruption.
        checkpoint_every: updates between two checkpoints.
        resumed: told the last step of the checkpoint that a training goes on from, before anything is logged.
        compile: compile what pays, where the learner knows how; falls back with a warning.
        settings: what differs from the defaults of the policy's `config_class`, by name; text is read as its type.
    """

    seed: int = 0
    steps: int | None = None
    device: str = "cpu"
    progress: bool = False
    penalties: PenaltyConfig = field(default_factory=PenaltyConfig)
    log: Callable[[str, float, int], None] | None = None
    watch: Callable[[Policy], Mapping[str, float]] | None = None
    checkpoint: Path | None = None
    checkpoint_every: int = 50
    resumed: Callable[[int], None] | None = None
    compile: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.checkpoint_every < 1:
            raise PolicyError(f"checkpoint_every={self.checkpoint_every}; keep a checkpoint every 1 or more updates")
        if self.steps is not None and self.steps < 1:
            raise PolicyError(f"steps={self.steps}; train for at least 1")

    def validated(self, policy: Policy, value: float, step: int) -> None:
        """Log what a policy was worth in validation, and what `watch` says of it."""
        if self.log is None:
            return
        self.log(VALIDATION_TAG, value, step)
        for tag, found in self.watch(policy).items() if self.watch is not None else ():
            self.log(tag, found, step)

    def over(self, config: Config, of: str, budget: str = "steps") -> Config:
        """A policy's config with the budget and the settings asked for; the latter have the last word.

        Args:
            config: of the policy's `config_class`.
            of: the policy's name, for messages.
            budget: the field that `steps` replaces.
        """
        config = config if self.steps is None else replace(config, **{budget: self.steps})  # type: ignore[type-var]
        return with_settings(config, self.settings, of)


class Policy(PolicyFacts, Described, ABC):
    """Picks slates from observations.

    Only `act` must be written. Batched, on the device of the observation. A policy that learns from the world writes
    `fit`, and is held to train in the loop unless it says how it `trains`; one with parameters writes `config`,
    `tensors` and `restore`, and can then be saved. `PolicyFacts` are what else a class says of itself.

    Attributes:
        name: what tables and TensorBoard call it.
        serving: what it takes to act outside any simulator; `make_policy` gives it where `fit` did not.
        kind: what a policy folder calls the class: a name of the registry, or of `KINDS` there; empty for a class of
            your own, which a folder names by its dotted path.
        reads_instruction: True for a policy that reads `observation["instruction"]`; for others `recommend` narrows
            the choice to what the instruction asks for.
    """

    name: str = "policy"
    serving: Serving | None = None
    kind: ClassVar[str] = ""
    reads_instruction: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "fit" in cls.__dict__ and "trains" not in cls.__dict__ and cls.trains == "no":
            cls.trains, cls.group = "loop", cls.__dict__.get("group", "rl")

    @abstractmethod
    def act(self, observation: Observation, carry: Carry, k: int, draw: Draw) -> tuple[Tensor, Carry]:
        """Pick slates: observation of B lanes -> int64 (B, k) item rows without repeats, and the next carry.

        `observation["action_mask"]` (B, N) says which items may be shown; a slate keeps to it. Where fewer than k may
        be shown, the places left over hold N.
        """

    def act_under(
        self, ruled: RuledSlates | None, observation: Observation, carry: Carry, k: int, draw: Draw
    ) -> tuple[Tensor, Carry]:
        """`act` where rules are kept: one that `ranks` shows the first k of a longer slate that keep them together.

        What still breaks a rule the core mends. `PolicyError` names what `act` gives that is no slate.
        """
        if ruled is None or not ruled.of_whole_slates or not self.ranks:
            return asked(self.act, self, observation, carry, k, draw)
        ranked, carry = asked(self.act, self, observation, carry, self.most_ranked(k), draw)
        return ruled.first_keeping(ranked), carry

    def most_ranked(self, k: int) -> int:
        """How long a slate to ask for where rules choose k items of it."""
        return min(RANKED * k, self._serving().catalogue_size)

    def log_prob(self, observation: Observation, slate: Tensor) -> Tensor:
        """Log-probability of the slates (B, k) under this policy, (B,).

        Raises NotImplementedError for a policy without one (a deterministic one, say).
        """
        raise NotImplementedError(f"{self.name} has no log-probability")

    def update(self, carry: Carry, transition: Transition, counts: Tensor) -> Carry:
        """Learn from one step while acting: the carry that the next `act` gets.

        For policies that learn online; who does not write it is never asked. What is learned lies in the carry, so that
        the policy stays as it was and every evaluation starts from there.

        Args:
            carry: what `act` gave with the slates.
            transition: what they led to; `transition.slate` is what was shown, after rules. Read-only, and good until
                the next step: copy what is kept.
            counts: bool (B,) lanes in their first episode; what the others do is in no result, and should teach
                nothing.
        """
        return carry

    @property
    def learning(self) -> Learn | None:
        """`update` where the class has written one, as `rollout` takes it."""
        return None if type(self).update is Policy.update else self.update

    @classmethod
    def fit(cls, world: World, options: FitOptions) -> Self:
        """Make the policy for a world. Default: the class without arguments, which learns nothing."""
        return cls()

    def continued(self, world: World, options: FitOptions, anchor: Anchor | None = None) -> Self:
        """This policy fitted on from where it stands, on what a world's train users consumed; itself stays as it was.

        For classes that say they `continues`.

        Args:
            world: of the same catalogue.
            options: as for `fit`.
            anchor: of an earlier `anchored`: what its weights may not forget; None lets them move freely.
        """
        raise PolicyError(f"policy '{self.name}' cannot be fitted on from where it stands; fit it anew")

    def anchored(self, world: World, strength: float) -> Anchor:
        """Where the weights stand, and how much each matters for what a world's train users consumed; see `Anchor`."""
        raise PolicyError(f"policy '{self.name}' does not say which weights matter; take one that `continues`")

    def recommend(
        self,
        observed: Observed,
        k: int = 10,
        candidates: Sequence[str] | None = None,
        exclude: Exclude | Sequence[str] = "seen",
        *,
        shortlist: int = SHORTLIST,
        rules: Rules | Mapping[str, Any] | Path | str | None = None,
        seed: int = 0,
    ) -> list[str]:
        """k external item ids for one person, best first, outside any simulator.

        Args:
            observed: what is known of the person, by external ids.
            k: how many items.
            candidates: external ids to choose from; default the whole catalogue.
            exclude: `seen` (what the history holds), `nothing`, or a list of external ids.
            shortlist: how many of the items nearest to the person's instruction a policy that does not read
                instructions orders; k where that is more.
            rules: what the k items keep, as `World.with_rules` takes them; default those that the policy was made for.
            seed: of policies that draw; one seed, one answer.

        Raises:
            PolicyError: an id nobody knows, fewer than k items left to choose from, or an instruction where the world
                has no encoder for it.
            RecloopError: rules that name what is not there, or that no k items keep.
        """
        return self.recommend_many([observed], k, candidates, exclude, shortlist=shortlist, rules=rules, seed=seed)[0]

    def recommend_many(
        self,
        people: Sequence[Observed],
        k: int = 10,
        candidates: Sequence[str] | None = None,
        exclude: Exclude | Sequence[str] = "seen",
        *,
        shortlist: int = SHORTLIST,
        rules: Rules | Mapping[str, Any] | Path | str | None = None,
        seed: int = 0,
    ) -> list[list[str]]:
        """`recommend` for several people at once; each gets what `recommend` alone would give."""
        if self.privileged:
            raise PolicyError(f"policy '{self.name}' reads the users' true state; it cannot serve people")
        serving = self._serving()
        observation = serving.observe(people, candidates, exclude)
        ruled = serving.ruled(k, rules)
        if ruled is not None:
            observation = {**observation, "action_mask": observation["action_mask"] & ruled.allowed}
        mask = observation["action_mask"]
        left = int(observation["action_mask"].sum(1).min())
        if not 1 <= k <= left:
            raise PolicyError(
                f"k={k} items asked for, {left} of {serving.catalogue_size} are left to choose from; choose k from "
                f"1 to {left}, widen `candidates` or pass exclude='nothing'"
            )
        if not self.reads_instruction:
            observation = serving.shortlisted(observation, max(k, shortlist))
        zeros = torch.zeros(len(people), dtype=torch.int64)
        with torch.no_grad():
            slates, _ = self.act_under(ruled, observation, None, k, Draw.at(seed, zeros, zeros, zeros))
        if ruled is not None:
            slates = ruled.kept_among(slates, mask)
        ids = serving.world.catalogue.ids
        return [[ids[row] for row in slate if row < len(ids)] for slate in slates.tolist()]

    def config(self) -> dict[str, Any]:
        """What `restore` needs besides tensors, as JSON."""
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """The parameters by name."""
        return {}

    @classmethod
    def restore(cls, serving: Serving, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Undo `config` and `tensors`, on the CPU. Default: the class called with the config."""
        return cls(**config)

    def save(self, folder: Path | str, made_with: Mapping[str, Any] | None = None) -> None:
        """Write `policy.json`, `weights.safetensors` and `serving/`; the folder is replaced whole or not at all.

        Args:
            made_with: settings that its manifest keeps.
        """
        if self.privileged:
            raise PolicyError(f"policy '{self.name}' reads the users' true state; it cannot be saved to serve people")
        serving = self._serving()
        facts = {
            "format": FORMAT,
            "kind": self.kind or f"{type(self).__module__}:{type(self).__qualname__}",
            "name": self.name,
            "config": self.config(),
            "fingerprint": serving.fingerprint,
            "reward": serving.world.reward.as_dict(),
            "rules": serving.world.rules.as_dict(),
        }
        with replacing_folder(Path(folder), made_with) as part:
            serving.save(part / "serving")
            write_tensors(part / "weights.safetensors", self.tensors())
            write_json(part / "policy.json", facts)

    def _serving(self) -> Serving:
        if self.serving is None:
            raise PolicyError(
                f"policy '{self.name}' belongs to no world; make it with make_policy, or set its `serving` to "
                "Serving.of(world)"
            )
        return self.serving


class Trainer(PolicyFacts, ABC):
    """Makes policies of another class: the name of an algorithm that `ActorPolicy`, say, knows nothing of.

    Attributes:
        name: in the registry, in tables and in checkpoints.
        policy_class: of the policies that it makes.
    """

    name: ClassVar[str]
    policy_class: ClassVar[type[Policy]]

    @classmethod
    @abstractmethod
    def fit(cls, world: World, options: FitOptions) -> Policy:
        """Train a policy in a world."""


class ScoringPolicy(Policy):
    """A policy that scores every item and shows the k best; equal scores by row number."""

    ranks = True

    @abstractmethod
    def scores(self, observation: Observation) -> Tensor:
        """How good each item is for each lane: float32 (B, N), larger is better; masks are not its business."""

    def act(self, observation: Observation, carry: Carry, k: int, draw: Draw) -> tuple[Tensor, Carry]:
        """The k best admissible items."""
        scores = self.scores(observation)
        return best_slate(scores, action_mask(observation, scores.shape[1]), k), None
