"""What a policy takes along to act outside any simulator: its world with nobody in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from recloop.agents.observed import Observed, histories_of_people, item_rows, past_of_people
from recloop.encoders.base.errors import PolicyError, unknown_name
from recloop.encoders.base.storage import read_json, replacing_folder, write_json
from recloop.envs.interaction.observation import DEFAULT_KEYS, Observation
from recloop.envs.interaction.reward_terms import CodedReward
from recloop.envs.interaction.ruled_slates import RuledSlates
from recloop.envs.interaction.rules import Rules
from recloop.envs.logs.sequences import Sequences
from recloop.envs.users.contract import UserSimulator
from recloop.envs.world.world import Card, World

Exclude = Literal["seen", "nothing"]


@dataclass(frozen=True)
class Serving:
    """Encoder, item tables, id map, signals and lengths of a world, without its users, behaviour and simulators.

    Args:
        world: the world with an empty users table; a user model only where a policy plans on one.
        fingerprint: `observation_fingerprint` of the world it was taken from.
    """

    world: World
    fingerprint: str

    @classmethod
    def of(cls, world: World, user_model: UserSimulator | None = None) -> "Serving":
        """Take from a world what serving needs; `user_model` goes along where a policy plans on one."""
        users, nobody = world.users, torch.empty(0, dtype=torch.int64)
        tables = ("part", "profile", "history", "feedback", "shown", "answers")
        bare = replace(
            world,
            users=replace(
                users,
                ids=(),
                instructions=(),
                instruction_vectors=torch.zeros(0, 0),
                **{name: getattr(users, name)[nobody] for name in tables},
            ),
            sequences=Sequences.empty(0, len(world.catalogue), len(world.signals)),
            simulators={},
            user_model=user_model,
            card=Card(),
            knowledge=None,
            patterns=None,
        )
        return cls(bare, world.observation_fingerprint)

    @property
    def catalogue_size(self) -> int:
        """N."""
        return len(self.world.catalogue)

    def with_code(self) -> "Serving":
        """With a reward that is code of its own imported; only for folders that somebody trusts."""
        reward = self.world.reward
        if not isinstance(reward, CodedReward):
            return self
        return replace(self, world=replace(self.world, reward=reward.imported()))

    def ruled(self, k: int, rules: Rules | Mapping[str, Any] | Path | str | None = None) -> RuledSlates | None:
        """What k items keep: the rules given, else those of the world; None without any."""
        world = self.world
        asked = world.rules if rules is None else Rules.of(rules)
        return RuledSlates.of(asked, world.catalogue, world.signals, k)

    def observe(
        self,
        people: Sequence[Observed],
        candidates: Sequence[str] | None = None,
        exclude: Exclude | Sequence[str] = "seen",
    ) -> Observation:
        """The observation of B people, as the loop would make it, with its `action_mask` bool (B, N).

        `state` is that of the whole history, however long; `history` holds its newest H.

        Args:
            people: what is known of each.
            candidates: external ids to choose from; default the whole catalogue.
            exclude: `seen` leaves out what a person's history holds, in every world, also where people consume
                an item again; `nothing` leaves out nothing; a list of external ids leaves out those.
        """
        if not people:
            raise PolicyError("nobody to recommend to; give at least one Observed")
        past, profile = past_of_people(people, self.world)
        encoder = self.world.state_encoder
        device = encoder.item_vectors.device  # a core shares the encoder and may have moved it
        with torch.no_grad():
            inputs = (table.to(device) for table in (profile, *histories_of_people(people, self.world)))
            vector = encoder.vector(encoder.start(*inputs)).cpu()
        instructions = self._instructions(people)
        keys = (*DEFAULT_KEYS, *(() if instructions is None else ("instruction",)), "action_mask")
        observation = self.world.spec().observe(past, vector, profile, keys, instructions)
        if isinstance(exclude, str):
            if exclude not in ("seen", "nothing"):
                raise PolicyError(unknown_name("choice of exclude", exclude, ("seen", "nothing")))
            allowed = observation["action_mask"]
            if exclude == "nothing":
                allowed = torch.ones_like(allowed)
        else:
            allowed = torch.ones_like(observation["action_mask"])
            allowed[:, item_rows(exclude, self.world, "exclude")] = False
        if candidates is not None:
            chosen = torch.zeros(self.catalogue_size, dtype=torch.bool)
            chosen[item_rows(candidates, self.world, "candidates")] = True
            allowed = allowed & chosen
        return {**observation, "action_mask": allowed}

    def shortlisted(self, observation: Observation, size: int) -> Observation:
        """The observation with `action_mask` narrowed to the `size` admissible items nearest to each instruction.

        For policies that do not read instructions. Lanes without a wish keep their mask.
        """
        encoder, instructions = self.world.instruction, observation.get("instruction")
        if encoder is None or instructions is None:
            return observation
        allowed = observation["action_mask"]
        scores = encoder.scores_of(instructions).masked_fill(~allowed, -torch.inf)
        nearest = scores.topk(min(size, self.catalogue_size), dim=1).indices
        chosen = torch.zeros_like(allowed).scatter(1, nearest, True) | ~instructions.any(1, keepdim=True)
        return {**observation, "action_mask": allowed & chosen}

    def _instructions(self, people: Sequence[Observed]) -> Tensor | None:
        """What people say they want, float32 (B, u); None where the world has no instruction encoder."""
        texts = [person.instruction for person in people]
        if self.world.instruction is not None:
            return self.world.instruction.encode(texts)
        said = [text for text in texts if text.strip()]
        if said:
            raise PolicyError(
                f"instruction '{said[0][:40]}' cannot be read: world '{self.world.name}' was built without an "
                "instruction encoder; build it with --encoder.instruction and train the policy there"
            )
        return None

    def save(self, folder: Path) -> None:
        """Write a folder; replaced whole or not at all."""
        with replacing_folder(folder) as part:
            self.world.save(part / "world")
            write_json(part / "serving.json", {"fingerprint": self.fingerprint})

    @classmethod
    def load(cls, folder: Path) -> "Serving":
        """Undo `save`; `RecloopError` names what is missing or damaged."""
        return cls(World.load(folder / "world"), str(read_json(folder / "serving.json")["fingerprint"]))
