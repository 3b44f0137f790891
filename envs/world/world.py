"""A world: everything learned from one log, in memory and as a folder.

The folder holds tables as Parquet, numbers as safetensors, facts as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet
import torch
from torch import Tensor

from recloop.encoders.base.errors import RecloopError, WorldError, unknown_name
from recloop.encoders.base.manifest import ANEW, check_files
from recloop.encoders.base.names import file_name
from recloop.encoders.base.replacing import sweep
from recloop.encoders.base.storage import read_json, read_tensors, replacing_folder, write_json, write_tensors
from recloop.encoders.instruction.encoder import InstructionEncoder
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.state.config import EncoderState
from recloop.encoders.state.encoder import StateEncoder
from recloop.encoders.text.encoder import TextVectors
from recloop.envs.evidence.support.model import SupportModel
from recloop.envs.interaction.item_columns import ItemColumns
from recloop.envs.interaction.reward_terms import reward_of
from recloop.envs.interaction.ruled_slates import RuledSlates
from recloop.envs.interaction.rules import Rules
from recloop.envs.logs.schema import LoggedBehavior, Signal
from recloop.envs.logs.sequences import Sequences, Slates
from recloop.envs.users.contract import UserSimulator
from recloop.envs.users.registry import load_simulator, save_simulator
from recloop.envs.world.data import WorldData
from recloop.envs.world.extending import extended
from recloop.envs.world.patterns import Patterns
from recloop.envs.world.tables import PARTS, Card, Catalogue, Part, UserTable

__all__ = ["FORMAT", "PARTS", "Card", "Catalogue", "Part", "UserTable", "World"]

FORMAT = 4
"""Version of the folder's layout; a newer one is refused. Since 3 a folder has a manifest, since 4 times."""

WARM_STATES = "warm_states.safetensors"
"""Where the state encoder is after each user's history: minutes of work on a large log, which no process does twice."""

_TRIPLE = ("head", "relation", "tail")


@dataclass(frozen=True, kw_only=True)
class World(WorldData):
    """Everything learned from one log: `WorldData`, and who answers.

    Args:
        simulators: who answers, by name: `train`, `validation` and judges (`judge`, `judge-...`) in a fitted world,
            `truth` in a ground-truth one.
        user_model: the users fitted on the train part that greedy policies plan on.
    """

    simulators: Mapping[str, UserSimulator]
    user_model: UserSimulator | None

    def described(self) -> dict[str, Any]:
        """The data, and who answers."""
        return {**super().described(), "simulators": self.simulators}

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
        return tuple(name for name in ("train", *self.judges, "truth") if name in self.simulators)

    @property
    def judges(self) -> tuple[str, ...]:
        """The names of the simulators that no policy was trained or tuned against: those that begin with `judge`."""
        return tuple(name for name in self.simulators if name.startswith("judge"))

    @property
    def first_judge(self) -> str:
        """The name of the first judge; of whom policies are evaluated with where there is none."""
        return (*self.judges, self.evaluation_simulators[-1])[0]

    def simulator(self, name: str) -> UserSimulator:
        """A simulator by name; `RecloopError` suggests the nearest."""
        if name not in self.simulators:
            raise RecloopError(unknown_name(f"simulator of world '{self.name}'", name, self.simulators))
        return self.simulators[name]

    def save(self, folder: Path | str, made_with: Mapping[str, Any] | None = None) -> None:
        """Write the world as a folder of safetensors, JSON and Parquet; replaced whole or not at all.

        Args:
            made_with: settings that its manifest keeps, so that a build with others does not replace it.
        """
        _write(self, Path(folder), made_with)

    @classmethod
    def load(cls, folder: Path | str) -> World:
        """Read a world; `WorldError` where it is missing, half-written, damaged or from a newer format."""
        folder = Path(folder)
        if not folder.exists():
            sweep(folder.parent)  # a writer may have been killed while it replaced the folder
        if not (folder / "world.json").exists():
            what = "is half-written: world.json is missing" if folder.exists() else "does not exist"
            raise WorldError(f"the world folder {folder} {what}; make it with `recloop build LOG --out {folder}`")
        try:
            return _read(folder)
        except WorldError:
            raise
        except (RecloopError, OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
            reason = str(error).splitlines()[0].removesuffix(f"; {ANEW}") if str(error) else type(error).__name__
            raise WorldError(f"the world in {folder} is damaged: {reason}; build it anew") from error

    def with_rules(self, rules: Rules | Mapping[str, Any] | Path | str, slate_size: int | None = None) -> World:
        """This world with rules that every slate keeps.

        Args:
            rules: as they are, by name, or a YAML or JSON file of them.
            slate_size: K that they must hold for; default the world's.

        Raises:
            RecloopError: rules that name what is not there, or that no slate keeps.
        """
        found = Rules.of(rules)
        RuledSlates.of(found, self.catalogue, self.signals, slate_size or self.slate_size)
        return replace(self, rules=found)

    def with_simulators(self, **simulators: UserSimulator) -> World:
        """This world with simulators of your own beside (or instead of) its own."""
        return replace(self, simulators={**self.simulators, **simulators})

    def extended(self, log: LoggedBehavior, text: TextVectors | None = None) -> World:
        """This world with a newer log behind its own, without a build: encoders stay as they were fitted.

        Known users go on from where the log left them; new ones are train users of whom no profile is known. What new
        items are is read from their texts; they belong to no group and have no neighbours in the knowledge graph.
        Popularity counts on. Where the world's log does not say what was shown, of the newer one consumption alone is
        kept. Who answers stays: fitted users know every user by what they did. With new items, or new users in a truth
        world, nobody answers (users know a row each): fit or plug in users of the new world.

        Args:
            log: same signals; ids known to the world mean its items and users, all others are new. `items` needs the
                columns title and text of the new ones.
            text: the text encoder of the world's items; only needed for new ones.

        Raises:
            WorldError: other signals, an empty log, one without exposures behind one that has them, new items without
                an encoder, or with one that the world's item vectors do not come from.
        """
        grown = extended(self, log, text)
        stays = len(grown.catalogue) == len(self.catalogue)
        if stays and (not self.is_truth or len(grown.users) == len(self.users)):
            return grown
        return replace(grown, simulators={}, user_model=None if not stays else grown.user_model)


def _write(world: World, folder: Path, made_with: Mapping[str, Any] | None) -> None:
    items, users = world.catalogue, world.users
    model = _user_model_name(world)
    facts = {
        "format": FORMAT,
        "name": world.name,
        "fingerprint": world.observation_fingerprint,
        "signals": [s.as_dict() for s in world.signals],
        "slate_size": world.slate_size,
        "max_steps": world.max_steps,
        "sessions": world.sessions,
        "max_days": world.max_days,
        "consumes_twice": world.consumes_twice,
        "reward": world.reward.as_dict(),
        "profile_names": users.profile_names,
        "simulators": list(world.simulators),
        "user_model": model,
        "group_names": items.group_names,
        "labels": items.columns.names(),
        "policies": world.sequences.policies,
        "rules": world.rules.as_dict(),
        "card": vars(world.card),
    }
    with replacing_folder(folder, made_with) as part:
        _item_table(items).to_parquet(part / "items.parquet")
        _user_table(users).to_parquet(part / "users.parquet")
        write_tensors(part / "users.safetensors", users.tensors())
        write_tensors(part / "sequences.safetensors", sequence_tensors(world.sequences))
        write_tensors(part / "items.safetensors", {"popularity": items.popularity, "groups": items.groups})
        if len(items.columns):
            write_tensors(part / "item_columns.safetensors", items.columns.tensors())
        world.state_encoder.save(part / "state_encoder")
        if len(users):
            write_tensors(part / WARM_STATES, world.warm_states.held())
        for name, simulator in world.simulators.items():
            save_simulator(simulator, part / "simulators" / file_name(name, "a simulator"))
        if world.user_model is not None and model == "user_model":
            save_simulator(world.user_model, part / "simulators" / "user_model")
        if world.knowledge is not None:
            save_knowledge(world.knowledge, part / "knowledge.parquet")
        if world.support is not None:
            world.support.save(part / "support")
        if world.instruction is not None:
            world.instruction.save(part / "instruction")
        if world.patterns is not None:
            (part / "patterns").mkdir()
            world.patterns.save(part / "patterns")
        write_json(part / "world.json", facts)


def _read(folder: Path) -> World:
    facts = read_json(folder / "world.json")
    if facts["format"] > FORMAT:
        raise WorldError(f"{folder} has format {facts['format']}, this recloop reads up to {FORMAT}; upgrade recloop")
    check_files(folder, required=facts["format"] >= 3)
    items = pd.read_parquet(folder / "items.parquet")
    users = pd.read_parquet(folder / "users.parquet")
    kept = {name: folder / "simulators" / file_name(name, "a simulator") for name in facts["simulators"]}
    simulators = {name: load_simulator(place) for name, place in kept.items()}
    model = facts["user_model"]
    user_model = simulators.get(model) if model else None
    if model and user_model is None:
        user_model = load_simulator(folder / "simulators" / file_name(model, "the user model"))
    encoder = StateEncoder.load(folder / "state_encoder")
    measured = (folder / "support").exists()
    world = World(
        name=facts["name"],
        signals=tuple(Signal.of(s) for s in facts["signals"]),
        catalogue=Catalogue(
            ids=tuple(items["item"]),
            titles=tuple(items["title"]),
            texts=tuple(items["text"]),
            group_names=tuple(facts.get("group_names", ())),
            entities=named_or_none(items["entity"]) if "entity" in items else (),
            columns=_item_columns(folder, facts),
            **read_tensors(folder / "items.safetensors"),
        ),
        users=UserTable(
            ids=tuple(users["user"]),
            profile_names=tuple(facts["profile_names"]),
            instructions=tuple(users["wish"]) if "wish" in users else (),
            **_user_tensors(read_tensors(folder / "users.safetensors")),
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
        reward=reward_of(facts["reward"]),
        rules=Rules.of(facts.get("rules", {})),
        card=Card(
            learned=tuple(facts["card"]["learned"]),
            assumed=tuple(facts["card"]["assumed"]),
            not_claimed=tuple(facts["card"]["not_claimed"]),
            figures=facts["card"]["figures"],
            cleaning=facts["card"]["cleaning"],
        ),
        knowledge=load_knowledge(folder / "knowledge.parquet"),
        support=SupportModel.load(folder / "support", item_vectors=encoder.item_vectors) if measured else None,
        instruction=InstructionEncoder.load(folder / "instruction") if (folder / "instruction").exists() else None,
        patterns=Patterns.load(folder / "patterns") if (folder / "patterns").exists() else None,
    )
    if (folder / WARM_STATES).exists():  # else they are worked out when somebody asks for them
        vars(world)["warm_states"] = EncoderState(**read_tensors(folder / WARM_STATES))
    if facts["format"] < 3 and world.observation_fingerprint != facts["fingerprint"]:  # since then the manifest says so
        raise WorldError(f"the files in {folder} do not belong together (fingerprint differs); build it anew")
    return world


def _item_table(items: Catalogue) -> pd.DataFrame:
    columns = {"item": items.ids, "title": items.titles, "text": items.texts}
    return pd.DataFrame({**columns, **({"entity": items.entities} if items.entities else {})})


def _item_columns(folder: Path, facts: Mapping[str, Any]) -> ItemColumns:
    path = folder / "item_columns.safetensors"
    return ItemColumns.of(read_tensors(path), facts["labels"]) if path.exists() else ItemColumns()


def _user_table(users: UserTable) -> pd.DataFrame:
    columns = {"user": users.ids, "part": [PARTS[int(part)] for part in users.part]}
    return pd.DataFrame({**columns, **({"wish": users.instructions} if users.instructions else {})})


def _user_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"instruction_vectors" if name == "wish_vectors" else name: value for name, value in tensors.items()}


def _user_model_name(world: World) -> str | None:
    """The simulator that is the user model too, or `user_model` where it is none of them; None without one."""
    if world.user_model is None:
        return None
    return next((name for name, users in world.simulators.items() if users is world.user_model), "user_model")


def sequence_tensors(sequences: Sequences) -> dict[str, Tensor]:
    """For safetensors; `sequences_from` undoes it."""
    arrays: dict[str, Any] = {
        "catalogue_size": np.array([sequences.catalogue_size]),
        "offsets": sequences.offsets,
        "items": sequences.items,
        "feedback": sequences.feedback,
        "given": sequences.given,
    }
    if sequences.slates is not None:
        arrays.update({f"slates.{name}": value for name, value in sequences.slates.arrays().items()})
    if sequences.profile_prefix is not None:
        arrays["told"] = sequences.profile_prefix  # its name on disk since format 2
    if sequences.times is not None:
        arrays["times"] = sequences.times
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()}


def sequences_from(tensors: dict[str, Tensor], policies: tuple[str, ...]) -> Sequences:
    """Undo `sequence_tensors`; the names of the logging policies are kept elsewhere."""
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
    size = int(arrays.pop("catalogue_size")[0])
    slates = {name.removeprefix("slates."): arrays.pop(name) for name in list(arrays) if name.startswith("slates.")}
    if "told" in arrays:
        arrays["profile_prefix"] = arrays.pop("told")
    return Sequences(catalogue_size=size, slates=Slates(**slates) if slates else None, policies=policies, **arrays)


def save_knowledge(knowledge: KnowledgeGraph, path: Path) -> None:
    """Write triples by name as Parquet."""
    names = [np.array(knowledge.entities), np.array(knowledge.relations), np.array(knowledge.entities)]
    columns = {c: names[i][knowledge.triples[:, i]] for i, c in enumerate(_TRIPLE)}
    pd.DataFrame(columns).to_parquet(path)


def load_knowledge(path: Path) -> KnowledgeGraph | None:
    """Undo `save_knowledge`; None where there is no file."""
    if not path.exists():
        return None
    table = pyarrow.parquet.read_table(path)
    return KnowledgeGraph.from_arrow(*(table[name].cast(pyarrow.large_string()) for name in _TRIPLE))


def named_or_none(column: pd.Series[str]) -> tuple[str | None, ...]:
    """A column of names with gaps as Python knows them."""
    return tuple(name if isinstance(name, str) else None for name in column)
