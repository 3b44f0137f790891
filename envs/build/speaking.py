"""A world whose users say what they want: what may be wished for in it, and its users with words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn import functional as F

from recloop.encoders.base.errors import UserSimulatorError
from recloop.encoders.instruction.encoder import InstructionEncoder
from recloop.encoders.instruction.facts import WHOLE, YEAR, Fact, ItemFacts, item_facts
from recloop.encoders.instruction.fit import fit_instruction_encoder
from recloop.encoders.instruction.phrases import PhraseBook
from recloop.encoders.instruction.spoken import SPOKEN
from recloop.encoders.text.encoder import HashedText, TextVectors
from recloop.envs.truth.tastes import TasteUsers
from recloop.envs.users.speaking.users import SpeakingUsers, Speech
from recloop.envs.users.speaking.wishes import Wishes
from recloop.envs.world.world import World

_USUAL = 3.0
"""Consumptions of the average user that every history is taken to hold besides its own."""


def speaking_world(
    world: World,
    speech: Speech | None = None,
    *,
    text: TextVectors | None = None,
    most: int = 32,
    wordings: int = 4,
    seed: int = 0,
    meaning: Sequence[int] | Tensor | None = None,
    voiced: Sequence[int] | Tensor | None = None,
) -> World:
    """The same world with users who say what they want, in all of its simulators.

    A world without an instruction encoder gets one, fitted on the `TRAINING` phrases; users speak by `SPOKEN`, which
    shares none of them. Who answered before still does: see `SpeakingUsers`. The model that greedy policies plan on
    stays deaf.

    Args:
        world: any, but one whose users speak already.
        speech: how strong wishes are, how they come and go.
        text: the language model that reads the words where the world has no instruction encoder; default hashed words.
        most, wordings: see `wishes_of`.
        seed: of the words, and of the encoder's fit.
        meaning, voiced: see `SpeakingUsers`.

    Raises:
        UserSimulatorError: nothing to wish for, or users who speak already.
    """
    if any(isinstance(users, SpeakingUsers) for users in world.simulators.values()):
        raise UserSimulatorError(f"the users of world '{world.name}' speak already; take the world they were made from")
    encoder = world.instruction
    if encoder is None:
        texts = world.catalogue.texts
        encoder = fit_instruction_encoder(text or HashedText(), world_facts(world), texts, seed=seed)
    wishes, speech = wishes_of(world, encoder, most=most, wordings=wordings, seed=seed), speech or Speech()
    simulators = {
        name: SpeakingUsers(users, wishes, speech, meaning=meaning, voiced=voiced)
        for name, users in world.simulators.items()
    }
    said = (
        f"that users say what they want: {len(wishes.names)} wishes drawn by what stands in a history, in words of "
        f"{wishes.wordings} kinds; an item that fits has e^{speech.strength:g} = {np.exp(speech.strength):.1f} times "
        "the odds to be taken of one that does not. No log says so"
    )
    deaf = tuple(line for line in world.card.not_claimed if not line.startswith("that an instruction was followed"))
    return replace(
        world,
        name=f"{world.name}-speaking",
        simulators=simulators,
        instruction=encoder,
        users=replace(world.users, instructions=(), instruction_vectors=torch.zeros(len(world.users), 0)),
        card=replace(world.card, assumed=(*world.card.assumed, said), not_claimed=deaf),
    )


def world_facts(world: World) -> ItemFacts:
    """What a world says of its items: titles, texts and its knowledge graph."""
    items = world.catalogue
    return item_facts(items.titles, items.texts, world.knowledge, items.entities or None, None, None)


def wishes_of(
    world: World,
    encoder: InstructionEncoder,
    *,
    most: int = 32,
    wordings: int = 4,
    book: PhraseBook = SPOKEN,
    seed: int = 0,
) -> Wishes:
    """The wishes of a world.

    Attributes that at least a slate of items and at most half of the catalogue have; of those that the same items have
    one; of the rest the `most` that were consumed most. A user wishes for an attribute in proportion to how often it
    stands in their history, to which a few consumptions of the average user are added; in a truth world, where there is
    no history, in proportion to how much they like its items' topics.

    Args:
        world: with titles and, for more than decades, a knowledge graph.
        encoder: reads the words.
        most: W at most.
        wordings: V; where the book knows fewer ways to say it they are repeated.
        book: the words; default those that no encoder is fitted on.
        seed: of the words.

    Raises:
        UserSimulatorError: where fewer than two attributes are left to wish for.
    """
    if most < 2 or wordings < 1:
        raise UserSimulatorError(f"most={most} wishes in wordings={wordings}; give 2 or more, and 1 or more")
    facts, count = world_facts(world), len(world.catalogue)
    chosen: dict[bytes, Fact] = {}
    for fact, rows in facts.holders.items():
        if fact[0] not in (*WHOLE, YEAR) and world.slate_size <= len(rows) <= count // 2:
            chosen.setdefault(rows.tobytes(), fact)
    popularity = world.catalogue.popularity.numpy()
    ranked = sorted(chosen.values(), key=lambda fact: -float(popularity[facts.holders[fact]].sum()))[:most]
    if len(ranked) < 2:
        raise UserSimulatorError(
            f"users of world '{world.name}' have {len(ranked)} thing(s) to wish for: attributes of {world.slate_size} "
            f"(a slate) to {count // 2} items. Build it with categories or a knowledge graph, or with a smaller slate"
        )
    rng = np.random.default_rng([seed, 0x5A1D])
    fits = torch.zeros(len(ranked), count, dtype=torch.bool)
    texts: list[str] = []
    for row, fact in enumerate(ranked):
        fits[row, torch.from_numpy(facts.holders[fact])] = True
        texts += _ways(book, fact, facts.noun, wordings, rng)
    names = tuple(f"{kind.replace('_', ' ')} {value}" for kind, value in ranked)
    return Wishes(names, tuple(texts), fits, encoder.encode(texts), _likely(world, fits.float()))


def _ways(book: PhraseBook, fact: Fact, noun: str, many: int, rng: np.random.Generator) -> list[str]:
    """`many` ways to ask for a fact, different ones first."""
    tried = list(dict.fromkeys(book.phrase([fact], noun, rng) for _ in range(10 * many)))
    return [tried[place % len(tried)] for place in range(many)]


def _likely(world: World, fits: Tensor) -> Tensor:
    """The chance of each wish, float32 (U+1, W): rows that add up to 1."""
    users, items, sequences = len(world.users), len(world.catalogue), world.sequences
    truth = world.simulators.get("truth")
    if sequences.users == users and len(sequences.items):
        owner = np.repeat(np.arange(users), sequences.lengths)
        counts = csr_array((np.ones(len(owner), np.float32), (owner, sequences.items)), shape=(users, items))
        usual = F.normalize(world.catalogue.popularity.float(), p=1, dim=0)
        weights = torch.from_numpy(np.asarray(counts @ fits.T.numpy())) + _USUAL * (fits @ usual)
    elif isinstance(truth, TasteUsers):
        weights = truth.preference[:, truth.topic].cpu() @ fits.T / fits.sum(1)
    else:
        weights = torch.ones(users, len(fits))
    weights = torch.cat([weights, weights.mean(0, keepdim=True)]).float()
    return F.normalize(weights.clamp_min(1e-6), p=1, dim=1)
