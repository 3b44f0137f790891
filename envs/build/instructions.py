"""What the users of a log would ask for: a generated wish each, in words and as a vector."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from torch import Tensor

from recloop.encoders.base.errors import WorldError
from recloop.encoders.instruction.encoder import InstructionEncoder
from recloop.encoders.instruction.facts import WHOLE, ItemFacts, consumed_together, item_facts
from recloop.encoders.instruction.fit import fit_instruction_encoder
from recloop.encoders.instruction.phrases import PLAIN
from recloop.encoders.text.encoder import TextVectors
from recloop.envs.logs.schema import Columns, LoggedBehavior
from recloop.envs.logs.sequences import Ints, Sequences
from recloop.envs.world.world import World

NO_READER = "--encoder.instruction needs a language model and --encoder.text is none; give a model's name"
_FEWEST = 2
"""Times an attribute must stand in a history to tell of a taste."""


def with_instruction(
    world: World, log: LoggedBehavior, text: TextVectors | None, train: Ints, seed: int, progress: bool = False
) -> World:
    """The world with an instruction encoder and a wish for each of its users.

    Args:
        world: built from `log`.
        text: the language model that reads items and instructions.
        train: users whose consumption tells which items are alike and how usual an attribute is.
        seed: of the fit.

    Raises:
        WorldError: without a language model.
    """
    if text is None:
        raise WorldError(NO_READER)
    facts = log_facts(log, world.sequences, train)
    encoder = fit_instruction_encoder(text, facts, world.catalogue.texts, seed=seed, progress=progress)
    instructions = user_instructions(facts, world.sequences, train)
    report = encoder.facts["report"]
    learned = (
        f"instructions: a head on the frozen language model, fitted on {report['pairs']:,} generated ones about "
        f"{report['items']:,} items ({', '.join(facts.kinds) or 'words and titles'}); "
        f"{sum(one != '' for one in instructions):,} of {len(instructions):,} users have a wish of their own"
    )
    deaf = (
        "that an instruction was followed: simulated users answer by what they are and do not hear what was asked for"
    )
    card = world.card
    return replace(
        world,
        instruction=encoder,
        users=replace(
            world.users, instructions=instructions, instruction_vectors=instruction_vectors(encoder, instructions)
        ),
        card=replace(card, learned=(*card.learned, learned), not_claimed=(*card.not_claimed, deaf)),
    )


def log_facts(log: LoggedBehavior, sequences: Sequences, users: Ints) -> ItemFacts:
    """What can be said of a log's items; what is consumed together is told by `users` alone."""
    mine = sequences.subset(users)
    return item_facts(
        list(log.items[Columns.title].astype(str)),
        list(log.items[Columns.text].fillna("").astype(str)),
        log.knowledge,
        _names(log, Columns.entity),
        _names(log, Columns.category),
        consumed_together(mine.items, mine.offsets, mine.catalogue_size),
    )


def user_instructions(facts: ItemFacts, sequences: Sequences, users: Ints) -> tuple[str, ...]:
    """What each user's history holds most tellingly, as an instruction in plain words, (U,).

    Of the attributes that stand in a history twice or more, the one whose count lies most standard deviations above
    what as many consumptions of `users` (train users) would hold. Blank where there is none: no wish.
    """
    kept = [fact for fact in facts.holders if fact[0] not in WHOLE]
    members = np.zeros((sequences.catalogue_size, len(kept)), dtype=np.float32)
    for column, fact in enumerate(kept):
        members[facts.holders[fact], column] = 1
    popularity = sequences.popularity(users)
    usual = popularity @ members / max(float(popularity.sum()), 1.0)  # (F,), share of all consumption
    rng = np.random.default_rng(0)  # the plain phrases leave nothing to draw
    instructions = []
    for user in range(sequences.users):
        items = sequences.items[sequences.offsets[user] : sequences.offsets[user + 1]]
        count = members[items].sum(0)
        spread = np.sqrt(len(items) * usual * (1 - usual)).clip(min=0.5)
        telling = np.where(count >= _FEWEST, (count - len(items) * usual) / spread, 0.0)
        best = int(telling.argmax()) if len(kept) else 0
        instructions.append(PLAIN.phrase([kept[best]], facts.noun, rng) if len(kept) and telling[best] > 0 else "")
    return tuple(instructions)


def instruction_vectors(encoder: InstructionEncoder, instructions: tuple[str, ...]) -> Tensor:
    """Vectors of the users' wishes, float32 (U, u); each distinct wish is encoded once."""
    distinct = sorted(set(instructions))
    row = {wish: place for place, wish in enumerate(distinct)}
    return encoder.encode(distinct)[[row[wish] for wish in instructions]]


def _names(log: LoggedBehavior, column: str) -> list[str | None] | None:
    if column not in log.items:
        return None
    return [str(value) if pd.notna(value) else None for value in log.items[column]]
