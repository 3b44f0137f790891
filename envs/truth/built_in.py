"""The built-in world: the truth world `boredom`, a log its users wrote, and what was learned from that log."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import torch

from recloop.encoders.knowledge.embeddings import item_knowledge
from recloop.encoders.state.batches import NextItemConfig
from recloop.encoders.state.config import StateEncoderConfig
from recloop.encoders.state.encoder import StateEncoder
from recloop.encoders.state.fitting import fit_state_encoder
from recloop.encoders.text.encoder import HashedText, TextEncoder, TextVectors
from recloop.envs.logs.compile import compile_sequences
from recloop.envs.logs.schema import LoggedBehavior
from recloop.envs.logs.sequences import Sequences
from recloop.envs.truth.boredom import BoredomRules
from recloop.envs.truth.catalogue import QualityLaw
from recloop.envs.truth.logs import truth_log
from recloop.envs.truth.worlds import truth_world
from recloop.envs.users.fitted import FitConfig, FitReport, fit_users
from recloop.envs.world.world import Card, World

LOGGING = "soft-focus"
"""The policy that the log is written under, a key of `logging_policies.KINDS`."""


@dataclass(frozen=True)
class BoredomWorldConfig:
    """Sizes of the built-in world.

    Args:
        users: U.
        topics: T, at most 10.
        items: N.
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
        user_window: slates of an example in that fit, and consumptions before it; short ones make more gradient steps
            in the same time.
        user_rate: first step size of that fit.
        tastes: (spread, shift) of the normals whose sigmoids are the preferences; these are wide enough that most
            users love a topic and shun another.
        quality: how good items are; most are poor.
        rules: of the users.
    """

    users: int = 240
    topics: int = 4
    items: int = 200
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
    user_window: int = 50
    user_rate: float = 1e-2
    tastes: tuple[float, float] = (1.8, -0.5)
    quality: QualityLaw = field(default_factory=lambda: QualityLaw(least=0.1, spread=1.38, shift=-1.0))
    rules: BoredomRules = field(default_factory=BoredomRules)


QUICK = BoredomWorldConfig(user_window=10, user_rate=2e-2, quality=QualityLaw(least=0.2, spread=1.0, shift=-0.7))
"""The world of an environment without a `world`. Few users say in seconds whom they like, not which of 200 items are
poor: items are more alike than in the demo, so that knowing the user is worth more than knowing the hits."""

DEMO = BoredomWorldConfig(users=1500, logged_slates=60, text="minilm", kg_epochs=30, state_epochs=12, user_epochs=8)
"""The world of `recloop demo`."""


@cache
def built_in_world() -> World:
    """The small world that an environment without a `world` is in: made in seconds, once a process, no model needed."""
    return boredom_world(QUICK)


def demo_world(progress: bool = False, say: Callable[[str], None] = lambda line: None) -> World:
    """The world of `recloop demo`: more users, MiniLM text vectors, graph embeddings, a well-fitted user model."""
    return boredom_world(DEMO, progress=progress, say=say)


def boredom_world(
    config: BoredomWorldConfig, *, progress: bool = False, say: Callable[[str], None] = lambda line: None
) -> World:
    """The truth world `boredom` whose users wrote a log, with the encoders and the user model that learned from it.

    Its one simulator, `truth`, is the users themselves; `user_model` is a recurrent model fitted on the train users'
    log, for policies that plan on one. Episodes start after the log, with nobody bored.
    """
    blank = unlearned_world(config)
    say("the users write a log")
    sequences, _, _ = compile_sequences(written_log(blank, config))
    train = blank.users.rows("train").numpy()
    say("state encoder, on the train users")
    encoder = _fit_encoder(config, blank, sequences.subset(train), progress)
    say("user model, on the train users")
    model, report = fit_users(
        "recurrent",
        sequences,
        train,
        encoder.item_vectors,
        blank.users.profile,
        blank.signals,
        groups=blank.catalogue.groups,
        config=FitConfig(
            epochs=config.user_epochs,
            lr=config.user_rate,
            history=config.user_window,
            window=config.user_window,
            lead=blank.users.shown.shape[1],
            seed=config.seed,
        ),
        progress=progress,
    )
    history, feedback = sequences.last(np.arange(config.users), blank.users.history.shape[1])
    popularity = torch.from_numpy(sequences.popularity(train))
    return replace(
        blank,
        catalogue=replace(blank.catalogue, popularity=popularity),
        users=replace(blank.users, history=history, feedback=feedback),
        sequences=sequences,
        state_encoder=encoder,
        user_model=model,
        card=_card(blank.card, sequences, report, sequences.repeat_rate(train)),
    )


def unlearned_world(config: BoredomWorldConfig) -> World:
    """The truth world before anybody behaved in it."""
    return truth_world(
        "boredom",
        users=config.users,
        items=config.items,
        seed=config.seed,
        slate_size=config.slate_size,
        max_steps=config.max_steps,
        topics=config.topics,
        tastes=config.tastes,
        quality=config.quality,
        rules=config.rules,
    )


def written_log(world: World, config: BoredomWorldConfig) -> LoggedBehavior:
    """Every user once, for several sessions, under a policy that visits varied states."""
    longer = replace(world, sessions=config.sessions, max_steps=config.logged_slates)
    return truth_log(longer, LOGGING, seed=config.seed)


def _fit_encoder(config: BoredomWorldConfig, world: World, train: Sequences, progress: bool) -> StateEncoder:
    text: TextVectors = HashedText(128) if config.text == "hashed" else TextEncoder()
    knowledge = None
    if config.kg_epochs and world.knowledge is not None:
        knowledge = item_knowledge(
            world.knowledge, world.entity_rows, dim=32, epochs=config.kg_epochs, seed=config.seed, progress=progress
        )
    return fit_state_encoder(
        {"text": text.encode(list(world.catalogue.texts), progress)},
        knowledge,
        train.items,
        train.offsets,
        train.feedback,
        [signal.bounds for signal in world.signals],
        config=StateEncoderConfig(dim=config.dim, hidden=64),
        seed=config.seed,
        fitting=NextItemConfig(epochs=config.state_epochs),
        progress=progress,
    )


def _card(card: Card, sequences: Sequences, report: FitReport, repeats: float) -> Card:
    """The truth's card, with what was learned from the log."""
    slates = sequences.slates
    figures = {
        "consumptions": len(sequences.items),
        "slates": 0 if slates is None else len(slates.items),
        "repeat_rate": repeats,
        "user_model": {signal: dict(values) for signal, values in report.figures.items()},
    }
    learned = (*card.learned, *(f"user_model: {sentence}" for sentence in report.learned))
    return replace(card, learned=learned, figures={**card.figures, **figures})
