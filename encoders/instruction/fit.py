"""Fitting the instruction encoder: a small head on the frozen language model, and the items' content vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.base.fit import FitLoop, fit, shuffled
from recloop.encoders.instruction.encoder import InstructionEncoder
from recloop.encoders.instruction.facts import Ints, ItemFacts, plain_title
from recloop.encoders.instruction.pairs import Instruction, draw_instructions
from recloop.encoders.instruction.phrases import TRAINING, PhraseBook
from recloop.encoders.text.encoder import TextVectors

_TEXT_WEIGHT = 3.0
"""At the start an item's text counts for so many titles or attributes."""
_FEW_VALUES = 128
"""A kind of fact with at most so many values is told by one number a value; others by the vectors of their names."""


@dataclass(frozen=True)
class InstructionConfig:
    """How an instruction encoder is fitted.

    Args:
        dim: d, length of a vector.
        pairs: instructions generated.
        epochs: passes over them.
        batch_size: instructions a step.
        learning_rate: of AdamW, falling to 0.
        weight_decay: of AdamW.
        dropout: share of the inputs left out in a step, on both sides.
    """

    dim: int = 256
    pairs: int = 4_000
    epochs: int = 10
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("dim", "pairs", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise EncoderError(f"{name}={getattr(self, name)} of an instruction encoder; it must be at least 1")


@dataclass(frozen=True)
class InstructionReport:
    """How a fit went.

    Args:
        pairs: instructions it was fitted on.
        items: items that they could mean.
        loss: mean cross-entropy against the fitting items in the last pass, in nats.
        chance: the same for a model that knows nothing: the logarithm of the number of items.
    """

    pairs: int
    items: int
    loss: float
    chance: float


def fit_instruction_encoder(
    text: TextVectors,
    facts: ItemFacts,
    texts: Sequence[str],
    config: InstructionConfig | None = None,
    seed: int = 0,
    *,
    items: Ints | None = None,
    book: PhraseBook = TRAINING,
    progress: bool = False,
) -> InstructionEncoder:
    """Fit head and items' side on generated instructions.

    Both sides are functions of content: u = phi^T h of the instruction, v = W [text, title, attributes] of the item,
    both of length 1; the loss is the cross-entropy of softmax(u . v / T) over the items against an even spread over
    those that fit. Afterwards W is spent: the table of all items is kept. Equal seeds give equal bits on one
    machine; no global generator is touched.

    Args:
        text: the frozen language model.
        facts: what is known of the N items.
        texts: what it reads of each, (N,).
        items: rows that instructions may be about and that stand in the softmax; default all. The others (held
            out) are in the table all the same.
        book: the words of the instructions.

    Raises:
        EncoderError: where nothing is known of the items, or the language model gives NaN.
    """
    config = config or InstructionConfig()
    rows = np.arange(len(texts)) if items is None else np.sort(items)
    pairs = draw_instructions(facts, book, rows, config.pairs, np.random.default_rng([seed, 0x1257]))
    pairs = [pair for pair in pairs if len(np.intersect1d(pair.fitting, rows))]
    if not pairs:
        raise EncoderError(f"no instruction about {len(rows)} items fits any of them; give more items")
    hidden = text.encode([pair.text for pair in pairs], progress)
    content = _content(text, facts, texts, progress)
    inputs = content.inputs
    for name, vectors in (("instructions", hidden), ("items", inputs)):
        if not bool(torch.isfinite(vectors).all()):
            raise EncoderError(f"the vectors of {name} hold NaN or infinity; take float32 or another model")
    model = _Towers(content, config.dim, torch.Generator().manual_seed(seed))
    loss = _fit(model, hidden, inputs[rows], _targets(pairs, rows, len(texts)), config, seed, progress)
    with torch.no_grad():
        table = torch.cat([model.items(inputs), torch.zeros(1, config.dim)])
    report = InstructionReport(len(pairs), len(rows), loss, math.log(len(rows)))
    return InstructionEncoder(
        text, model.head.detach(), model.bias.detach(), table, {"config": asdict(config), "report": asdict(report)}
    )


@dataclass(frozen=True)
class _Content:
    """All that describes N items, in parts.

    Args:
        parts: float32 (N, c_i) each, centred and at a mean length of 1.
        meanings: float32 (c_i, t) what each input of a part says in the language model's space; None where the part is
            in that space itself.
    """

    parts: tuple[Tensor, ...]
    meanings: tuple[Tensor | None, ...]

    @property
    def inputs(self) -> Tensor:
        """The parts side by side, (N, c)."""
        return torch.cat(self.parts, dim=1)


def _content(text: TextVectors, facts: ItemFacts, texts: Sequence[str], progress: bool) -> _Content:
    """The vectors of an item's text and title, and for each kind of attribute either one number a value (few values:
    genres, decades) or the mean vector of its values' names (people).
    """
    parts = [text.encode(texts, progress), text.encode([plain_title(title) for title in facts.titles], progress)]
    meanings: list[Tensor | None] = [None, None]
    for kind in facts.kinds:
        values = [value for name, value in facts.holders if name == kind]
        names = text.encode(values, progress)
        few = len(values) <= _FEW_VALUES
        vectors = torch.eye(len(values)) if few else names
        total = torch.zeros(len(texts), vectors.shape[1])
        for vector, value in zip(vectors, values, strict=True):
            total[torch.from_numpy(facts.holders[kind, value])] += vector
        parts.append(F.normalize(total, dim=1))
        meanings.append(names if few else None)
    return _Content(tuple(_centred(part) for part in parts), tuple(meanings))


def _centred(part: Tensor) -> Tensor:
    """Rows less their mean, at a mean length of 1; rows of zeros ("not known") stay zero."""
    known = (part != 0).any(1)
    if not bool(known.any()):
        return part
    part = (part - part[known].mean(0)) * known.unsqueeze(1)
    length: Tensor = part[known].norm(dim=1).mean().clamp_min(1e-6)
    return part / length


def _targets(pairs: Sequence[Instruction], rows: Ints, catalogue: int) -> Tensor:
    """What a perfect ranking of `rows` would give each instruction, (P, n): even over what fits, NaN for `named`."""
    place = np.full(catalogue, -1)
    place[rows] = np.arange(len(rows))
    targets = torch.zeros(len(pairs), len(rows))
    for row, pair in enumerate(pairs):
        fitting = place[pair.fitting]
        fitting = fitting[fitting >= 0]
        targets[row, torch.from_numpy(fitting)] = 1 / len(fitting)
        if pair.named >= 0:
            targets[row, place[pair.named]] = torch.nan
    return targets


class _Towers(nn.Module):
    """The head of the instructions and the projection of the items.

    Both start where the language model's own cosine is: head and text parts share one projection that keeps most of
    the variance of its vectors (principal directions, then random ones), and an input that stands for a value starts
    as the value's name. What fitting adds is what the language model does not know.
    """

    def __init__(self, content: _Content, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        spoken = torch.cat([p for p, meaning in zip(content.parts, content.meanings, strict=True) if meaning is None])
        width = spoken.shape[1]
        covariance = (spoken.T @ spoken).numpy().astype(np.float64)
        directions = torch.from_numpy(np.linalg.eigh(covariance)[1]).to(torch.float32)
        start = directions.flip(1)[:, :dim]  # (t, d), the largest first
        if dim > width:
            more = torch.randn(width, dim - width, generator=generator) / math.sqrt(width)
            start = torch.cat([start, more], dim=1)
        self.head = nn.Parameter(start.clone())
        self.bias = nn.Parameter(torch.zeros(dim))
        blocks = [start if meaning is None else _centred(meaning) @ start for meaning in content.meanings]
        blocks[0] = blocks[0] * _TEXT_WEIGHT
        self.tower = nn.Parameter(torch.cat(blocks))
        self.sharpness = nn.Parameter(torch.tensor(math.log(20.0)))

    def asked(self, hidden: Tensor) -> Tensor:
        """u of the language model's vectors (B, t), (B, d) of length 1."""
        return F.normalize(hidden @ self.head + self.bias, dim=1)

    def items(self, inputs: Tensor) -> Tensor:
        """v of items' content (n, c), (n, d) of length 1."""
        return F.normalize(inputs @ self.tower, dim=1)


def _fit(
    model: _Towers,
    hidden: Tensor,
    inputs: Tensor,
    targets: Tensor,
    config: InstructionConfig,
    seed: int,
    progress: bool,
) -> float:
    """Fit both towers: hidden (P, t), inputs (n, c), targets (P, n); the loss of the last pass."""
    generator = torch.Generator().manual_seed(seed)

    def loss(rows: Tensor) -> tuple[Tensor, int]:
        wanted = targets[rows]
        users = model.asked(_dropped(hidden[rows], config.dropout, generator))
        named = wanted.isnan()
        logits = (model.sharpness.exp() * users @ model.items(inputs).T).masked_fill(named, -1e9)
        return -(wanted.masked_fill(named, 0.0) * logits.log_softmax(1)).sum(1).mean(), len(rows)

    loop = FitLoop(
        passes=config.epochs,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        schedule="linear",
        steps_a_pass=-(-len(hidden) // config.batch_size),
    )
    history = fit(
        model,
        loop,
        lambda: shuffled(len(hidden), config.batch_size, generator),
        loss,
        name="instructions",
        progress=progress,
        error=EncoderError,
    )
    return history.passes[-1].loss


def _dropped(inputs: Tensor, share: float, generator: torch.Generator) -> Tensor:
    if share <= 0:
        return inputs
    kept = torch.rand(inputs.shape, generator=generator) >= share
    return inputs * kept / (1 - share)
