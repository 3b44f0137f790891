"""Training of sequence models, by the one fit loop."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.agents.baselines.next_item import without_last
from recloop.agents.learners.checkpoints import KeptFit
from recloop.agents.policy import FitOptions
from recloop.agents.sequence.batches import batches, held_out_users, last_items
from recloop.agents.sequence.config import SequenceConfig
from recloop.agents.sequence.losses import masked_places, place_loss
from recloop.agents.sequence.model import SequenceModel
from recloop.agents.sequence.teaching import Lessons
from recloop.encoders.base.anchors import Anchor, anchor_of
from recloop.encoders.base.digests import digest_of_value
from recloop.encoders.base.errors import PolicyError
from recloop.encoders.base.fit import FitLoop, Pass, fit
from recloop.encoders.base.storage import json_like
from recloop.encoders.text.models import number_type
from recloop.envs.logs.sequences import Ints, Sequences
from recloop.envs.simulation.core import checked_device

LESSONS_A_STEP = 64
"""Histories of a teacher's in a gradient step."""


def train_sequence_model(
    sequences: Sequences,
    users: Ints,
    config: SequenceConfig,
    options: FitOptions | None = None,
    content: Mapping[str, Tensor] | None = None,
    lessons: Lessons | None = None,
    name: str = "sequence model",
    start: SequenceModel | None = None,
    anchor: Anchor | None = None,
) -> SequenceModel:
    """Train on the given users; the weights of the pass with the best held-out figure are kept.

    All that users consumed is learned from: long users are cut into windows at random places. Equal bits for equal
    arguments, device, processor and threads, unless `config.seconds` cuts the run.

    Args:
        sequences: what the users consumed; of every other user nothing is read.
        users: int64 (U,) whom to learn from.
        config: parts, sizes and training.
        options: seed, device, progress bar, log and checkpoint, kept after every pass; `steps` replaces
            `config.epochs`, `settings` the rest. Logs `train/loss`, `validation/loss` (nats an item; with
            `stop_by=ndcg` 1 - NDCG@10) and `train/learning_rate` a pass.
        content: float32 (N, w) of each of `config.items` but `ids`.
        lessons: what a teacher thinks of some histories; None without one.
        name: of the policy, for messages.
        start: a trained model to go on from; it stays as it was. Without `content` it goes on as it is, and of `config`
            what says how to train is read; with content its weights serve the items of that, in any catalogue: see
            `SequenceModel.take`. None begins anew.
        anchor: what of `start` is to be kept, added to the loss; at infinite strength nothing is trained.

    Raises:
        PolicyError: where the users consumed nothing, content is missing, or `start` knows another catalogue.
    """
    options = options or FitOptions()
    config = options.over(config, name, "epochs")
    goes_on = start if content is None else None
    content = _checked(config, content or {}, sequences.catalogue_size, name) if goes_on is None else {}
    if goes_on is not None and goes_on.catalogue_size != sequences.catalogue_size:
        raise PolicyError(
            f"{name} was trained on {goes_on.catalogue_size} items, the log has {sequences.catalogue_size}; fit it anew"
        )
    users = users[sequences.lengths[users] > 0]
    if not len(users):
        raise PolicyError(f"the train users consumed nothing; {name} needs at least one sequence")
    held = held_out_users(sequences, users, config.held_out, np.random.default_rng(options.seed))
    kept = without_last(sequences, held)
    device = checked_device(options.device)
    counts = torch.from_numpy(kept.popularity(users))
    if goes_on is not None:
        model = copy.deepcopy(goes_on).train()
        if anchor is not None and anchor.strength == math.inf:
            return model.eval()
    else:
        model = SequenceModel(sequences.catalogue_size, config, options.seed, content)
        with torch.no_grad():
            model.bias.copy_(torch.log((counts + 1) / (counts.sum() + len(counts))))
        if start is not None:
            model.take(start)
    model = model.to(device)
    noise, order = torch.Generator(device).manual_seed(options.seed), torch.Generator().manual_seed(options.seed)
    generators = {"noise": noise, "order": order}
    half = config.precision == "bfloat16" or (
        config.precision == "auto" and number_type("auto", device) != torch.float32
    )
    value = place_loss(model, counts.to(device), noise, half)

    def loss(items: Tensor) -> tuple[Tensor, float]:
        items, table, n = items.to(device), model.table(), model.catalogue_size
        if config.causal:
            asked = items < n
            hidden = model(items[:, :-1], table, noise)
        else:
            asked = masked_places(items, n, config.masked, noise)
            hidden = model(items.masked_fill(asked, n + 1), table, noise)
        found = value(hidden[asked], items[asked], table)
        if lessons is not None:
            found = found + config.teaching * lessons.loss(model, LESSONS_A_STEP, noise)
        if anchor is not None:
            found = found + anchor.penalty(model)
        return found, float(asked.sum())

    def log(one: Pass) -> None:
        if options.log is not None:
            options.log("train/loss", one.loss, one.number + 1)
            options.log("validation/loss", one.held_out, one.number + 1)
            options.log("train/learning_rate", one.learning_rate, one.number + 1)

    steps_a_pass = max(1, round(float(kept.lengths[users].sum()) / config.batch_items))
    loop = FitLoop(
        passes=config.epochs,
        learning_rate=config.learning_rate,
        betas=(0.9, 0.98),
        schedule="warm-cosine",
        warmup=min(100, 1 + steps_a_pass * config.epochs // 20),
        steps_a_pass=steps_a_pass,
        clip=1.0,
        patience=config.patience,
        seconds=config.seconds,
    )
    decayed = {name for name, weight in model.named_parameters() if name.startswith("blocks") and weight.dim() > 1}
    fit(
        model,
        loop,
        lambda: batches(kept, users, config.length, config.batch_items, _drawn_from(order)),
        loss,
        (lambda: _held_out(model, sequences, held)) if len(held) else None,
        groups=[
            {"params": [w for n, w in model.named_parameters() if n in decayed], "weight_decay": config.weight_decay},
            {"params": [w for n, w in model.named_parameters() if n not in decayed], "weight_decay": 0.0},
        ],
        log=log,
        keep=_kept(model, [kept.items, kept.offsets, users, lessons, *_weights(start)], name, options, generators),
        name=name,
        progress=options.progress,
        error=PolicyError,
    )
    model.fold()
    return model.eval()


def sequence_anchor(model: SequenceModel, sequences: Sequences, users: Ints, strength: float) -> Anchor:
    """Hold a sequence model where it stands, by the likelihood of the users' newest items, information an item.

    Raises:
        PolicyError: a model that reads in both directions, or users who consumed nothing.
    """
    if not model.config.causal:
        raise PolicyError("bert4rec has no likelihood of a sequence to be anchored by; take a causal backbone")
    users = users[sequences.lengths[users] > 0]
    if not len(users):
        raise PolicyError("the train users consumed nothing; there is nothing to anchor a sequence model by")
    length, device = model.config.length, model.bias.device

    def examples() -> Iterator[Tensor]:
        for user in users:
            yield torch.from_numpy(sequences.of(user)[0][-length:]).to(device)

    def log_likelihood(items: Tensor) -> Tensor:
        """Over the root of how many items there are, so that its squared gradient is one an item."""
        table = model.table()
        logits = model.logits(model(items[:-1].unsqueeze(0), table)[0], table)  # (T, N)
        return -F.cross_entropy(logits, items, reduction="sum") / math.sqrt(len(items))

    return anchor_of(model, examples(), log_likelihood, strength)


def _kept(
    model: SequenceModel,
    data: Sequence[Any],
    name: str,
    options: FitOptions,
    generators: Mapping[str, torch.Generator],
) -> KeptFit | None:
    """Where the fit is kept, with all that it depends on; None where nobody asked for it."""
    if options.checkpoint is None:
        return None
    facts = {
        "learner": name,
        "config": json_like(asdict(model.config)),
        "seed": options.seed,
        "data": digest_of_value([*data, *model.content.values()]),
        "device": model.bias.device.type,
    }
    return KeptFit(options.checkpoint, facts, generators, options.resumed)


def _weights(start: SequenceModel | None) -> list[Tensor]:
    return [] if start is None else list(start.state_dict().values())


def _drawn_from(order: torch.Generator) -> np.random.Generator:
    """NumPy's generator of one pass, so that `order` alone says how a fit goes on."""
    return np.random.default_rng(int(torch.randint(2**62, (), generator=order)))


def _held_out(model: SequenceModel, sequences: Sequences, held: Ints) -> float:
    """The figure that training stops by, over the held-out last items: cross-entropy, or 1 - NDCG@10."""
    total, device = 0.0, model.bias.device
    for history, target in last_items(sequences, held, model.config.length):
        scores, target = model.scores(history.to(device)), target.to(device)
        if model.config.stop_by == "loss":
            total += float(F.cross_entropy(scores, target, reduction="sum"))
            continue
        own = scores.gather(1, target.unsqueeze(1))
        rows = torch.arange(len(history), device=device).unsqueeze(1)
        scores = F.pad(scores, (0, 1)).index_put((rows, history.to(device)), scores.new_tensor(-torch.inf))
        rank = 1 + (scores[:, :-1] > own).sum(1)
        total += float((1 - (rank <= 10) / torch.log2(1 + rank)).sum())
    return total / len(held)


def _checked(config: SequenceConfig, content: Mapping[str, Tensor], n: int, name: str) -> dict[str, Tensor]:
    """The sources that the config names, or `PolicyError`."""
    found: dict[str, Tensor] = {}
    for source in config.items:
        if source == "ids":
            continue
        if source not in content:
            raise PolicyError(f"{name} asks for items={source}, and there are no such vectors; leave {source} out")
        if content[source].shape[0] != n or not bool(torch.isfinite(content[source]).all()):
            raise PolicyError(f"the {source} vectors of {name} must be finite, a row for each of {n} items")
        found[source] = content[source]
    return found
