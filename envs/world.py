"""A world: everything learned from one log, in memory and on disk."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recloop.encoders.errors import RecloopError, WorldError, unknown_name
from recloop.encoders.instruction import InstructionEncoder
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.state import StateEncoder
from recloop.encoders.state_config import EncoderState
from recloop.encoders.storage import (
    read_json,
    read_tensors,
    replacing_folder,
    write_json,
    write_tensors,
)
from recloop.envs.logs.schema import Signal
from recloop.envs.logs.sequences import Ints, Sequences
from recloop.envs.observation import ObservationSpec
from recloop.envs.patterns import Patterns
from recloop.envs.rewards import WeightedReward
from recloop.envs.support.model import SupportModel
from recloop.envs.users.contract import UserSimulator
from recloop.envs.users.registry import load_simulator, save_simulator
from recloop.envs.warm_states import warm_states
from recloop.envs.world_files import load_knowledge, named_or_none, save_knowledge, sequence_tensors, sequences_from

FORMAT = 2
"""Version of the folder's layout; a newer one is refused."""

Part = Literal["train", "fit", "tune", "judge", "evaluate", "all"]
"""Disjoint parts of the users. `train` is `fit` (training users) and `tune` (the validation simulator) together."""
PARTS = ("fit", "tune", "judge", "evaluate")


@dataclass(frozen=True)
class Catalogue:
    """The items, by row.

    Args:
        ids: external ids, (N,).
        titles: what a person reads, (N,).
        texts: what the language model read, (N,).
        popularity: float32 (N,) how often the train users consumed each item.
        groups: int64 (N+1, G) each item's group in each of G groupings; row N holds how many groups a grouping has,
            and so does an item that belongs to none.
        group_names: of the G groupings.
        entities: names of the items' entities in the knowledge graph, None where not linked, (N,); empty where nobody
            recorded them.
    """

    ids: tuple[str, ...]
    titles: tuple[str, ...]
    texts: tuple[str, ...]
    popularity: Tensor
    groups: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.int64))
    group_names: tuple[str, ...] = ()
    entities: tuple[str | None, ...] = ()

    @cached_property
    def rows(self) -> dict[str, int]:
        """External id -> row."""
        return {name: row for row, name in enumerate(self.ids)}

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class UserTable:
    """The users, by row, as they arrive.

    Args:
        ids: external ids, (U,).
        part: int64 (U,) index into `PARTS`.
        profile: float32 (U, p) features.
        profile_names: names of the p features.
        history, feedback: (U, H), (U, H, S) the newest logged consumptions; see `Past`.
        shown, answers: (U, L, K), (U, L, K, S) the newest logged slates; see `Past`.
        wishes: what each user would ask for, in words, (U,); empty where the world has no instruction encoder.
        wish_vectors: float32 (U, d_u) the same as vectors.
    """

    ids: tuple[str, ...]
    part: Tensor
    profile: Tensor
    profile_names: tuple[str, ...]
    history: Tensor
    feedback: Tensor
    shown: Tensor
    answers: Tensor
    wishes: tuple[str, ...] = ()
    wish_vectors: Tensor = field(default_factory=lambda: torch.zeros(0, 0))

    def rows(self, part: Part | str) -> Tensor:
        """Row numbers of one part, int64 rising."""
        if part == "all":
            return torch.arange(len(self.part))
        if part == "train":
            return ((self.part == 0) | (self.part == 1)).nonzero()[:, 0]
        if part not in PARTS:
            raise RecloopError(unknown_name("part of the users", part, (*PARTS, "train", "all")))
        return (self.part == PARTS.index(part)).nonzero()[:, 0]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Card:
    """What a person must know before believing a world.

    Args:
        learned: what was fitted and on what, with its held-out figures.
        assumed: what the log does not tell and was set by hand.
        not_claimed: what must not be concluded from this world.
        figures: numbers by name (counts, repeat rate, fits), for tables.
        cleaning: rows dropped or repaired, by reason.
    """

    learned: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    not_claimed: tuple[str, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    cleaning: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class World:
    """Everything learned from one log.

    Args:
        name: what people call it.
        signals: what an answer carries; the first is the binary consumption.
        catalogue, users: the two tables.
        sequences: every user's behaviour by row numbers; fits read the part they are allowed to.
        state_encoder: shared by policies, training users and judges; holds the item vectors (N+1, d).
        simulators: who answers, by name: `train`, `validation` and `judge` in a fitted world, `truth` in a
            ground-truth one.
        user_model: the users fitted on the train part that greedy policies plan on.
        slate_size: K, items shown at once.
        max_steps: time limit of an episode in slates.
        consumes_twice: False where nobody consumes an item again; such items are masked.
        reward: the default reward.
        card: what to know before believing it.
        knowledge: the graph, or None.
        support: how far a step lies from anything logged; None where nobody measured it, as in a truth world.
        instruction: what reads a user's words; None where none was built.
        patterns: segments of users and topics of behaviour that people can read; None where nobody looked for them.
        sessions: most sessions of an episode; after the last one the user has left for good.
        max_days: days away that an episode holds, None without limit: shorter gaps mean more sessions.
    """

    name: str
    signals: tuple[Signal, ...]
    catalogue: Catalogue
    users: UserTable
    sequences: Sequences
    state_encoder: StateEncoder
    simulators: Mapping[str, UserSimulator]
    user_model: UserSimulator | None
    slate_size: int
    max_steps: int
    consumes_twice: bool
    reward: WeightedReward
    card: Card
    knowledge: KnowledgeGraph | None = None
    support: SupportModel | None = None
    patterns: Patterns | None = None
    instruction: InstructionEncoder | None = None
    sessions: int = 1
    max_days: float | None = None

    @property
    def item_vectors(self) -> Tensor:
        """float32 (N+1, d); row N, the empty place, is zero."""
        return self.state_encoder.item_vectors

    @cached_property
    def entity_rows(self) -> Ints:
        """int64 (N,) each item's position among `knowledge.entities`; -1 without a graph or a link."""
        if self.knowledge is None or not self.catalogue.entities:
            return np.full(len(self.catalogue), -1, dtype=np.int64)
        return self.knowledge.entity_rows(self.catalogue.entities)

    @property
    def is_truth(self) -> bool:
        """True where the users are written down, so that what is best is known."""
        return "truth" in self.simulators and "train" not in self.simulators

    @property
    def training_simulator(self) -> str:
        """The name of the simulator that agents train in."""
        return "truth" if self.is_truth else "train"

    @property
    def evaluation_simulators(self) -> tuple[str, ...]:
        """The simulators that comparisons are run in."""
        if self.is_truth:
            return ("truth",)
        return tuple(name for name in ("train", "judge", "truth") if name in self.simulators)

    def simulator(self, name: str) -> UserSimulator:
        """A simulator by name; `RecloopError` suggests the nearest."""
        if name not in self.simulators:
            raise RecloopError(unknown_name(f"simulator of world '{self.name}'", name, self.simulators))
        return self.simulators[name]

    def spec(self, slate_size: int | None = None, max_steps: int | None = None) -> ObservationSpec:
        """Sizes of an observation in this world."""
        slate_size = slate_size or self.slate_size
        if not 1 <= slate_size <= len(self.catalogue):
            raise RecloopError(
                f"slate_size={slate_size} does not fit a catalogue of {len(self.catalogue)} items; "
                f"choose 1 to {len(self.catalogue)}"
            )
        return ObservationSpec(
            catalogue_size=len(self.catalogue),
            state_dim=self.state_encoder.dim,
            history_length=self.users.history.shape[1],
            shown_length=self.users.shown.shape[1],
            slate_size=slate_size,
            profile_dim=self.users.profile.shape[1],
            signals=self.signals,
            max_steps=max_steps or self.max_steps,
            instruction_dim=self.instruction.dim if self.instruction is not None else 0,
        )

    @cached_property
    def warm_states(self) -> EncoderState:
        """Where the state encoder is after each user's logged history, U lanes on the CPU; computed once."""
        users = self.users
        states = warm_states(self.state_encoder, users.profile, users.history, users.feedback, self.sequences)
        return states.to(torch.device("cpu"))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the tables and the encoder: two worlds with one fingerprint give equal observations."""
        digest = hashlib.sha256()
        for fact in (self.name, self.catalogue.ids, self.users.ids, [s.as_dict() for s in self.signals]):
            digest.update(json.dumps(fact).encode())
        tensors = {**_user_tensors(self.users), **self.state_encoder.state_dict()}
        if self.instruction is not None:
            tensors.update(instruction=self.instruction.table, instruction_head=self.instruction.weight)
        for name in sorted(tensors):
            digest.update(name.encode())
            digest.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, folder: Path | str) -> None:
        """Write the world as a folder of safetensors, JSON and Parquet; replaced whole or not at all."""
        with replacing_folder(Path(folder)) as part:
            facts = {
                "format": FORMAT,
                "name": self.name,
                "fingerprint": self.fingerprint,
                "signals": [s.as_dict() for s in self.signals],
                "slate_size": self.slate_size,
                "max_steps": self.max_steps,
                "sessions": self.sessions,
                "max_days": self.max_days,
                "consumes_twice": self.consumes_twice,
                "reward": self.reward.as_dict(),
                "profile_names": self.users.profile_names,
                "simulators": list(self.simulators),
                "user_model": self._user_model_name,
                "group_names": self.catalogue.group_names,
                "policies": self.sequences.policies,
                "card": {
                    "learned": self.card.learned,
                    "assumed": self.card.assumed,
                    "not_claimed": self.card.not_claimed,
                    "figures": self.card.figures,
                    "cleaning": self.card.cleaning,
                },
            }
            items = {"item": self.catalogue.ids, "title": self.catalogue.titles, "text": self.catalogue.texts}
            linked = {"entity": self.catalogue.entities} if self.catalogue.entities else {}
            pd.DataFrame({**items, **linked}).to_parquet(part / "items.parquet")
            people = {"user": self.users.ids, "part": [PARTS[int(p)] for p in self.users.part]}
            if self.users.wishes:
                people["wish"] = self.users.wishes
            pd.DataFrame(people).to_parquet(part / "users.parquet")
            write_tensors(part / "users.safetensors", _user_tensors(self.users))
            write_tensors(part / "sequences.safetensors", sequence_tensors(self.sequences))
            write_tensors(
                part / "items.safetensors",
                {"popularity": self.catalogue.popularity, "groups": self.catalogue.groups},
            )
            self.state_encoder.save(part / "state_encoder")
            for name, simulator in self.simulators.items():
                save_simulator(simulator, part / "simulators" / name)
            if self._user_model_name == "user_model" and self.user_model is not None:
                save_simulator(self.user_model, part / "simulators" / "user_model")
            if self.knowledge is not None:
                save_knowledge(self.knowledge, part / "knowledge.parquet")
            if self.support is not None:
                self.support.save(part / "support")
            if self.instruction is not None:
                self.instruction.save(part / "instruction")
            if self.patterns is not None:
                (part / "patterns").mkdir()
                self.patterns.save(part / "patterns")
            write_json(part / "world.json", facts)

    @property
    def _user_model_name(self) -> str | None:
        if self.user_model is None:
            return None
        return next((n for n, s in self.simulators.items() if s is self.user_model), "user_model")

    @classmethod
    def load(cls, folder: Path | str) -> "World":
        """Read a world; `WorldError` where it is missing, half-written, damaged or from a newer format."""
        folder = Path(folder)
        if not (folder / "world.json").exists():
            what = "is half-written: world.json is missing" if folder.exists() else "does not exist"
            raise WorldError(f"the world folder {folder} {what}; make it with `recloop build LOG --out {folder}`")
        try:
            return cls._load(folder)
        except WorldError:
            raise
        except (RecloopError, OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise WorldError(f"the world in {folder} is damaged: {reason}; build it anew") from error

    @classmethod
    def _load(cls, folder: Path) -> "World":
        facts = read_json(folder / "world.json")
        if facts["format"] > FORMAT:
            raise WorldError(
                f"{folder} has format {facts['format']}, this recloop reads up to {FORMAT}; upgrade recloop"
            )
        items = pd.read_parquet(folder / "items.parquet")
        users = pd.read_parquet(folder / "users.parquet")
        tensors = read_tensors(folder / "users.safetensors")
        simulators = {name: load_simulator(folder / "simulators" / name) for name in facts["simulators"]}
        model = facts["user_model"]
        user_model = simulators.get(model) if model else None
        if model and user_model is None:
            user_model = load_simulator(folder / "simulators" / model)
        encoder = StateEncoder.load(folder / "state_encoder")
        measured = (folder / "support").exists()
        world = cls(
            name=facts["name"],
            signals=tuple(Signal.of(s) for s in facts["signals"]),
            catalogue=Catalogue(
                ids=tuple(items["item"]),
                titles=tuple(items["title"]),
                texts=tuple(items["text"]),
                group_names=tuple(facts.get("group_names", ())),
                entities=named_or_none(items["entity"]) if "entity" in items else (),
                **read_tensors(folder / "items.safetensors"),
            ),
            users=UserTable(
                ids=tuple(users["user"]),
                profile_names=tuple(facts["profile_names"]),
                wishes=tuple(users["wish"]) if "wish" in users else (),
                **tensors,
            ),
            sequences=sequences_from(read_tensors(folder / "sequences.safetensors"), tuple(facts.get("policies", ()))),
            state_encoder=encoder,
            simulators=simulators,
            user_model=user_model,
            slate_size=facts["slate_size"],
            max_steps=facts["max_steps"],
            sessions=facts.get("sessions", 1),
            max_days=facts.get("max_days"),
            consumes_twice=facts["consumes_twice"],
            reward=WeightedReward(**facts["reward"]),
            card=Card(
                learned=tuple(facts["card"]["learned"]),
                assumed=tuple(facts["card"]["assumed"]),
                not_claimed=tuple(facts["card"]["not_claimed"]),
                figures=facts["card"]["figures"],
                cleaning=facts["card"]["cleaning"],
            ),
            knowledge=load_knowledge(folder / "knowledge.parquet"),
            support=SupportModel.load(folder / "support", encoder.item_vectors) if measured else None,
            instruction=InstructionEncoder.load(folder / "instruction") if (folder / "instruction").exists() else None,
            patterns=Patterns.load(folder / "patterns") if (folder / "patterns").exists() else None,
        )
        if world.fingerprint != facts["fingerprint"]:
            raise WorldError(f"the files in {folder} do not belong together (fingerprint differs); build it anew")
        return world

    def __deepcopy__(self, memo: dict[int, Any]) -> "World":
        """A world is immutable, and Gymnasium copies the arguments of every environment it makes."""
        return self

    def with_simulators(self, **simulators: UserSimulator) -> "World":
        """This world with simulators of your own beside (or instead of) its own."""
        return replace(self, simulators={**self.simulators, **simulators})


def _user_tensors(users: UserTable) -> dict[str, Tensor]:
    names = ("part", "profile", "history", "feedback", "shown", "answers")
    held = {name: getattr(users, name) for name in names}
    return {**held, "wish_vectors": users.wish_vectors} if users.wishes else held
