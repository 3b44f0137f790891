"""The built-in ground-truth world: users with topics who tire, a log they wrote, and what was learned from it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recloop.encoders.knowledge.embeddings import item_knowledge
from recloop.encoders.state.batches import NextItemConfig
from recloop.encoders.state.config import StateEncoderConfig
from recloop.encoders.state.encoder import StateEncoder
from recloop.encoders.state.fitting import fit_state_encoder
from recloop.encoders.text.encoder import HashedText, TextEncoder, TextVectors
from recloop.envs.build.pipeline import split_users
from recloop.envs.interaction.observation import Observation
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.reward import WeightedReward
from recloop.envs.logs.compile import compile_sequences
from recloop.envs.logs.schema import Columns, LoggedBehavior
from recloop.envs.logs.sequences import Sequences
from recloop.envs.simulation.core import Core
from recloop.envs.simulation.recording import record
from recloop.envs.simulation.rollout import Picked
from recloop.envs.truth.topics import TopicRules, TopicUsers
from recloop.envs.truth.topics_catalogue import TopicCatalogue, topic_catalogue
from recloop.envs.users.fitted import FitConfig, FitReport, fit_users
from recloop.envs.world.world import PARTS, Card, Catalogue, UserTable, World


@dataclass(frozen=True)
class TopicWorldConfig:
    """Sizes of the built-in world.

    Args:
        users: U.
        topics: T, at most 6.
        items_a_topic: N = topics x this.
        slate_size: K.
        max_steps: time limit of an episode in slates.
        sessions: most sessions a user has in the log.
        logged_slates: most slates a user has in the log.
        seed: of everything drawn.
        dim: d, length of item and user vectors.
        text: `hashed` words (no model needed) or `minilm`.
        kg_epochs: passes over the triples; 0 leaves the graph out of the encoder.
        state_epochs: most passes of the state encoder's fit.
        user_epochs: most passes of the user model's fit.
        rules: of the users.
    """

    users: int = 240
    topics: int = 4
    items_a_topic: int = 50
    slate_size: int = 5
    max_steps: int = 20
    sessions: int = 6
    logged_slates: int = 40
    seed: int = 0
    dim: int = 32
    text: str = "hashed"
    kg_epochs: int = 0
    state_epochs: int = 3
    user_epochs: int = 3
    rules: TopicRules = field(default_factory=TopicRules)


DEMO = TopicWorldConfig(users=1500, logged_slates=60, text="minilm", kg_epochs=30, state_epochs=12, user_epochs=8)
"""The world of `recloop demo`."""


@cache
def built_in_world() -> World:
    """The small world that an environment without a `world` is in: made in seconds, once a process, no model needed."""
    return topic_world(TopicWorldConfig())


def demo_world(progress: bool = False, say: Callable[[str], None] = lambda line: None) -> World:
    """The world of `recloop demo`: more users, MiniLM text vectors, graph embeddings, a well-fitted user model."""
    return topic_world(DEMO, progress=progress, say=say)


def topic_world(
    config: TopicWorldConfig, *, progress: bool = False, say: Callable[[str], None] = lambda line: None
) -> World:
    """A ground-truth world: its users wrote a log under `SoftFocus`, and the encoders learned from that log.

    Its one simulator, `truth`, is the users themselves; `user_model` is a recurrent model fitted on the train users'
    log, for policies that plan on one. Episodes start after the log, with nobody bored.
    """
    catalogue = topic_catalogue(config.topics, config.items_a_topic, config.seed)
    truth = TopicUsers(_preferences(config), catalogue.topic, catalogue.quality, config.rules)
    text: TextVectors = HashedText(128) if config.text == "hashed" else TextEncoder()
    say("item texts")
    text_vectors = text.encode(list(catalogue.items[Columns.text]), progress)
    blank = _blank_world(config, catalogue, truth, text_vectors)
    say("the users write a log")
    log = write_log(blank, SoftFocus(truth), config)
    sequences, _, _ = compile_sequences(log)
    rows = {name: blank.users.rows(name).numpy() for name in (*PARTS, "train")}
    say("state encoder, on the train users")
    encoder = _fit_encoder(config, catalogue, text_vectors, sequences.subset(rows["train"]), progress)
    say("user model, on the train users")
    model, report = fit_users(
        "recurrent",
        sequences,
        rows["train"],
        encoder.item_vectors,
        blank.users.profile,
        truth.signals,
        groups=blank.catalogue.groups,
        config=FitConfig(epochs=config.user_epochs, seed=config.seed, lead=blank.users.shown.shape[1]),
        progress=progress,
    )
    everyone = np.arange(config.users)
    history, feedback = sequences.last(everyone, blank.users.history.shape[1])
    popularity = torch.from_numpy(sequences.popularity(rows["train"]))
    return replace(
        blank,
        catalogue=replace(blank.catalogue, popularity=popularity),
        users=replace(blank.users, history=history, feedback=feedback),
        sequences=sequences,
        state_encoder=encoder,
        user_model=model,
        card=_card(config, sequences, report, sequences.repeat_rate(rows["train"])),
    )


class SoftFocus:
    """A logging policy that visits varied states: a random focus a slate, good items more often.

    With probability 1 / (T + 1) a slate has no focus, else one of the T topics is favoured by `focus` nats. Items are
    then drawn without repeats (Plackett-Luce) by focus plus `taste` times log quality. The recorded propensity is that
    of an item in its place given the places above, with the focus summed out.
    """

    def __init__(self, users: TopicUsers, focus: float = 2.0, taste: float = 0.7) -> None:
        worth = taste * users.quality.log()
        favoured = torch.nn.functional.one_hot(users.topic, users.topics).T * focus  # (T, N)
        self.scores = torch.cat([worth.unsqueeze(0), worth + favoured])  # (T+1, N)

    def __call__(self, observation: Observation, k: int, draw: Draw) -> tuple[Tensor, Tensor]:
        """Slates (B, k) of the lanes of `observation`, and their propensities (B, k)."""
        batch, (kinds, n) = len(observation["state"]), self.scores.shape
        kind = (draw.uniform("focus") * kinds).long()  # (B,)
        items = torch.arange(n).expand(batch, -1)
        slate = (self.scores[kind] + draw.gumbel("slate", items)).topk(k, dim=1).indices
        left = self.scores.expand(batch, -1, -1).clone()  # (B, T+1, N)
        prefix = torch.full((batch, kinds), 1.0 / kinds)
        propensity = []
        for place in range(k):
            pick = slate[:, place].view(-1, 1, 1).expand(-1, kinds, 1)
            chance = left.softmax(2).gather(2, pick)[..., 0]  # (B, T+1)
            propensity.append((prefix * chance).sum(1) / prefix.sum(1))
            prefix = prefix * chance
            left.scatter_(2, pick, -torch.inf)
        return slate, torch.stack(propensity, dim=1)


def write_log(world: World, focus: SoftFocus, config: TopicWorldConfig) -> LoggedBehavior:
    """Every user of the world once, under `focus`."""
    core = Core(
        world,
        "truth",
        batch=config.users,
        users="all",
        seed=config.seed,
        sessions=config.sessions,
        max_steps=config.logged_slates,
        start="cold",
    )
    core.reset(users=torch.arange(config.users))

    def pick(observation: Observation, carry: Any, draw: Draw) -> Picked:
        return Picked(*focus(observation, core.slate_size, draw))

    return record(core, pick, "topics")


def _preferences(config: TopicWorldConfig) -> Tensor:
    """float32 (U, T): sigmoid of independent normals, wide enough that most users love a topic and shun another."""
    generator = torch.Generator().manual_seed(config.seed)
    return torch.sigmoid(1.8 * torch.randn(config.users, config.topics, generator=generator) - 0.5)


def _blank_world(config: TopicWorldConfig, catalogue: TopicCatalogue, truth: TopicUsers, text: Tensor) -> World:
    """The world before anybody behaved: enough for users to be shown slates in it."""
    n, users, signals = len(catalogue.items), config.users, len(truth.signals)
    encoder = StateEncoder(
        text[:, : config.dim], [s.bounds for s in truth.signals], config=StateEncoderConfig(dim=config.dim)
    )
    history, shown = 50, 5
    return World(
        name="topics",
        signals=truth.signals,
        catalogue=Catalogue(
            ids=tuple(catalogue.items.index),
            titles=tuple(catalogue.items[Columns.title]),
            texts=tuple(catalogue.items[Columns.text]),
            popularity=torch.zeros(n),
            groups=torch.cat([catalogue.topic, torch.tensor([config.topics])]).unsqueeze(1),
            group_names=(Columns.category,),
            entities=tuple(catalogue.items[Columns.entity]),
        ),
        users=UserTable(
            ids=tuple(f"user-{i}" for i in range(users)),
            part=split_users(users, (0.45, 0.15, 0.2), config.seed),
            profile=torch.zeros(users, 0),
            profile_names=(),
            history=torch.full((users, history), n),
            feedback=torch.zeros(users, history, signals),
            shown=torch.full((users, shown, config.slate_size), n),
            answers=torch.zeros(users, shown, config.slate_size, signals),
        ),
        sequences=Sequences.empty(users, n, signals),
        state_encoder=encoder,
        simulators={"truth": truth},
        user_model=None,
        slate_size=config.slate_size,
        max_steps=config.max_steps,
        consumes_twice=True,
        reward=WeightedReward({"click": 1.0}),
        card=Card(),
        knowledge=catalogue.knowledge,
    )


def _fit_encoder(
    config: TopicWorldConfig, catalogue: TopicCatalogue, text: Tensor, train: Sequences, progress: bool
) -> StateEncoder:
    entities = catalogue.knowledge.entity_rows(list(catalogue.items[Columns.entity]))
    knowledge = None
    if config.kg_epochs:
        knowledge = item_knowledge(
            catalogue.knowledge, entities, dim=32, epochs=config.kg_epochs, seed=config.seed, progress=progress
        )
    return fit_state_encoder(
        {"text": text},
        knowledge,
        train.items,
        train.offsets,
        train.feedback,
        [signal.bounds for signal in TopicUsers.signals],
        config=StateEncoderConfig(dim=config.dim, hidden=64),
        seed=config.seed,
        fitting=NextItemConfig(epochs=config.state_epochs),
        progress=progress,
    )


def _card(config: TopicWorldConfig, sequences: Sequences, report: FitReport, repeats: float) -> Card:
    slates = sequences.slates
    return Card(
        learned=(
            "Nothing about the users is learned: they are written down (recloop.envs.truth.topics).",
            *(f"user_model: {sentence}" for sentence in report.learned),
        ),
        assumed=(f"All of it: {config.rules}.",),
        not_claimed=("Real people are not claimed to behave like these users.",),
        figures={
            "users": sequences.users,
            "items": sequences.catalogue_size,
            "consumptions": len(sequences.items),
            "slates": 0 if slates is None else len(slates.items),
            "repeat_rate": repeats,
            "user_model": {signal: dict(values) for signal, values in report.figures.items()},
        },
    )
