"""What was learned from one log, without the simulated users."""

import hashlib
import json
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recloop.encoders.base.described import Described
from recloop.encoders.base.digests import digest_of_value
from recloop.encoders.base.errors import RecloopError
from recloop.encoders.instruction.encoder import InstructionEncoder
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.state.config import EncoderState
from recloop.encoders.state.encoder import StateEncoder
from recloop.envs.evidence.support.model import SupportModel
from recloop.envs.interaction.observation import ObservationSpec
from recloop.envs.interaction.reward_terms import KeptReward
from recloop.envs.interaction.rules import Rules
from recloop.envs.logs.schema import Signal
from recloop.envs.logs.sequences import Ints, Sequences
from recloop.envs.world.patterns import Patterns
from recloop.envs.world.tables import Card, Catalogue, UserTable

_PLACES = 100_000
"""Items encoded at once: users times the longest history among them."""


@dataclass(frozen=True, kw_only=True)
class WorldData(Described):
    """Everything learned from one log but its simulated users: what users and policies may read of a world.

    Args:
        name: what people call it.
        signals: what an answer carries; the first is the binary consumption.
        catalogue, users: the two tables.
        sequences: every user's behaviour by row numbers; fits read the part they are allowed to.
        state_encoder: shared by policies, training users and judges; holds the item vectors (N+1, d).
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
        rules: what every slate in this world keeps.
    """

    name: str
    signals: tuple[Signal, ...]
    catalogue: Catalogue
    users: UserTable
    sequences: Sequences
    state_encoder: StateEncoder
    slate_size: int
    max_steps: int
    consumes_twice: bool
    reward: KeptReward
    card: Card
    knowledge: KnowledgeGraph | None = None
    support: SupportModel | None = None
    patterns: Patterns | None = None
    instruction: InstructionEncoder | None = None
    sessions: int = 1
    max_days: float | None = None
    rules: Rules = field(default_factory=Rules)

    @property
    def masks_items(self) -> bool:
        """Whether there are items that may not be shown: consumed before, or against the rules."""
        return not self.consumes_twice or bool(self.rules)

    def described(self) -> dict[str, Any]:
        """What a person looks for first; the card says what to believe of it."""
        return {
            "name": self.name,
            "items, users": f"{len(self.catalogue):,}, {len(self.users):,}",
            "signals": self.signals,
            "slates": f"{self.slate_size} items, at most {self.max_steps} an episode",
            "state encoder": self.state_encoder,
            "knowledge": "none" if self.knowledge is None else self.knowledge,
            "not claimed": self.card.not_claimed,
        }

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
        """sha256 over all that changes what happens: tables, encoders, users, reward, limits and rules.

        A training goes on from a checkpoint only in a world of the same fingerprint.
        """
        told = {one.name for one in fields(self)} - {"card", "patterns"}
        return digest_of_value({name: getattr(self, name) for name in told})

    @cached_property
    def observation_fingerprint(self) -> str:
        """sha256 over the tables and the encoder: two worlds with an equal one give equal observations.

        A policy acts in any world of its observation fingerprint, whoever answers there and whatever is rewarded.
        """
        digest = hashlib.sha256()
        for fact in (self.name, self.catalogue.ids, self.users.ids, [s.as_dict() for s in self.signals]):
            digest.update(json.dumps(fact).encode())
        tensors = {**self.users.tensors(), **self.state_encoder.state_dict()}
        if self.instruction is not None:
            tensors.update(instruction=self.instruction.table, instruction_head=self.instruction.weight)
        for name in sorted(tensors):
            digest.update(name.encode())
            digest.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def __deepcopy__(self, memo: dict[int, Any]) -> "WorldData":
        """A world is immutable, and Gymnasium copies the arguments of every environment it makes."""
        return self


@torch.no_grad()
def warm_states(
    encoder: StateEncoder, profile: Tensor, history: Tensor, feedback: Tensor, sequences: Sequences
) -> EncoderState:
    """The states of U users after their whole logged histories, of which an observation holds the newest items.

    Args:
        encoder: on any device.
        profile: float32 (U, p).
        history: int64 (U, H) the newest items of each.
        feedback: float32 (U, H, S).
        sequences: of the same users; read for those who consumed more than H.

    Returns:
        U lanes on the encoder's device.
    """
    device = encoder.item_vectors.device
    lengths = np.full(len(history), history.shape[1])
    if sequences.users == len(history):
        lengths = np.maximum(lengths, sequences.lengths)
    order = np.argsort(-lengths, kind="stable")
    parts, first = [], 0
    while first < len(order):
        longest = int(lengths[order[first]])
        users = order[first : first + max(1, _PLACES // max(longest, 1))]
        first += len(users)
        rows = torch.from_numpy(users)
        items, signals = history[rows], feedback[rows]
        if longest > history.shape[1]:
            items, signals = sequences.last(users, longest)
        parts.append(encoder.start(profile[rows].to(device), items.to(device), signals.to(device), keep=True))
    back = torch.from_numpy(np.argsort(order, kind="stable")).to(device)
    return EncoderState.concatenate(parts).rows(back) if parts else encoder.blank(profile.to(device))
