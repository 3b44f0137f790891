"""Training SASRec: windows of sequences, full softmax, early stopping on held-out last items."""

import math
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from recloop.agents.baselines.next_item import without_last
from recloop.agents.baselines.sasrec import SASRec, SASRecConfig
from recloop.agents.policy import FitOptions
from recloop.encoders.base.errors import PolicyError
from recloop.envs.logs.sequences import Ints, Sequences
from recloop.envs.simulation.core import checked_device


def train_sasrec(
    sequences: Sequences, users: Ints, config: SASRecConfig | None = None, options: FitOptions | None = None
) -> SASRec:
    """Train on the given users; the weights of the pass with the best held-out loss are kept.

    Equal bits for equal arguments, device and threads, unless `config.seconds` cuts the run.

    Args:
        sequences: what the users consumed; of every other user nothing is read.
        users: int64 (U,) whom to learn from.
        config: sizes and training.
        options: seed, device, progress bar and log; `steps` replaces `config.epochs`, `settings` the rest. Logs
            `sasrec/loss`, `sasrec/held_out_loss` (both nats an item) and `sasrec/learning_rate` a pass.

    Raises:
        PolicyError: where the users consumed nothing.
    """
    options = options or FitOptions()
    config = options.over(config or SASRecConfig(), "sasrec", "epochs")
    users = users[sequences.lengths[users] > 0]
    if not len(users):
        raise PolicyError("the train users consumed nothing; SASRec needs at least one sequence")
    rng = np.random.default_rng(options.seed)
    held = _held_out(sequences, users, config.held_out, rng)
    kept = without_last(sequences, held)
    model = SASRec(sequences.catalogue_size, config, options.seed)
    with torch.no_grad():
        counts = torch.from_numpy(kept.popularity(users))
        model.bias.copy_(torch.log((counts + 1) / (counts.sum() + len(counts))))
    return _Trainer(model.to(checked_device(options.device)), kept, users, options, rng).run(sequences, held)


class _Trainer:
    """The loop over passes and batches."""

    def __init__(
        self, model: SASRec, kept: Sequences, users: Ints, options: FitOptions, rng: np.random.Generator
    ) -> None:
        self.model, self.config = model, model.config
        self.kept, self.users, self.options, self.rng = kept, users, options, rng
        self.device = model.bias.device
        self.noise = torch.Generator(self.device).manual_seed(options.seed)
        decayed = [p for n, p in model.named_parameters() if n.startswith("blocks") and p.dim() > 1]
        others = [p for n, p in model.named_parameters() if not (n.startswith("blocks") and p.dim() > 1)]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": self.config.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=self.config.learning_rate,
            betas=(0.9, 0.98),
        )
        self.steps_a_pass = max(1, round(float(kept.lengths[users].sum()) / self.config.batch_items))
        self.done = 0

    def run(self, sequences: Sequences, held: Ints) -> SASRec:
        """Train until the passes, the patience or the time are used up."""
        best, best_loss, waited = self._weights(), math.inf, 0
        started = time.monotonic()
        bar = tqdm(range(self.config.epochs), desc="sasrec", unit="pass", disable=not self.options.progress)
        for epoch in bar:
            loss = self._one_pass(started)
            held_loss = self._held_out_loss(sequences, held) if len(held) else loss
            self._log(epoch + 1, loss, held_loss)
            bar.set_postfix(loss=f"{loss:.3f}", held_out=f"{held_loss:.3f}")
            if held_loss < best_loss:
                best, best_loss, waited = self._weights(), held_loss, 0
            else:
                waited += 1
            if waited >= self.config.patience or self._spent(started) >= 1:
                break
        self.model.load_state_dict(best)
        return self.model.eval()

    def _one_pass(self, started: float) -> float:
        self.model.train()
        total = weight = 0.0
        for items in self._batches():
            self._set_learning_rate(max(self.done / (self.steps_a_pass * self.config.epochs), self._spent(started)))
            target = items < self.model.catalogue_size
            hidden = self.model(items[:, :-1], self.noise)
            loss = F.cross_entropy(self.model.logits(hidden[target]), items[target])
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            count = float(target.sum())
            total, weight = total + float(loss.detach()) * count, weight + count
            self.done += 1
            if self._spent(started) >= 1:
                break
        return total / weight

    def _batches(self) -> Iterator[Tensor]:
        """Windows of all users in a new order, of like length together: int64 (B, T), empty places N at the end."""
        length = self.config.length
        owner, first, size = _windows(self.kept.lengths[self.users], length, self.rng)
        order = np.lexsort((self.rng.random(len(size)), size))
        ends = np.cumsum(size[order]) // self.config.batch_items
        groups = np.split(order, np.flatnonzero(np.diff(ends)) + 1)
        for place in self.rng.permutation(len(groups)):
            group = groups[place]
            width = int(size[group].max())
            starts = self.kept.offsets[self.users[owner[group]]] + first[group]
            steps = np.arange(width)
            held = steps < size[group][:, None]
            rows = np.where(held, starts[:, None] + steps, 0)
            items = np.where(held, self.kept.items[rows], self.kept.catalogue_size)
            yield torch.from_numpy(items).to(self.device)

    @torch.no_grad()
    def _held_out_loss(self, sequences: Sequences, held: Ints) -> float:
        """Mean nats of the held-out last items."""
        self.model.eval()
        total = 0.0
        for chunk in np.array_split(held, -(-len(held) // 256)):
            ends = sequences.lengths[chunk] - 1
            history, _ = sequences.last(chunk, self.config.length, ends)
            target = torch.from_numpy(sequences.items[sequences.offsets[chunk] + ends]).to(self.device)
            scores = self.model.scores(history.to(self.device))
            total += float(F.cross_entropy(scores, target, reduction="sum"))
        return total / len(held)

    def _set_learning_rate(self, share: float) -> None:
        """A short rise, then half a cosine to zero over the share of the run that is done."""
        rise = min(1.0, (self.done + 1) / min(100, 1 + self.steps_a_pass * self.config.epochs // 20))
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))

    def _spent(self, started: float) -> float:
        """The share of the time limit used, 0 without one."""
        return 0.0 if self.config.seconds is None else (time.monotonic() - started) / self.config.seconds

    def _log(self, epoch: int, loss: float, held_loss: float) -> None:
        if self.options.log is not None:
            self.options.log("sasrec/loss", loss, epoch)
            self.options.log("sasrec/held_out_loss", held_loss, epoch)
            self.options.log("sasrec/learning_rate", self.optimizer.param_groups[0]["lr"], epoch)

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.model.state_dict().items()}


def _held_out(sequences: Sequences, users: Ints, share: float, rng: np.random.Generator) -> Ints:
    """Users whose last item is held out: a share of those with three items or more, rising."""
    able = users[sequences.lengths[users] >= 3]
    chosen: Ints = np.sort(rng.permutation(able)[: round(share * len(able))])
    return chosen


def _windows(lengths: Ints, length: int, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """Cut sequences into windows of at most `length` at random places, each item in exactly one.

    Returns int64 (W,): the owner's place in `lengths`, the first item, and the number of items.
    """
    newest = np.minimum(rng.integers(1, length + 1, len(lengths)), lengths)
    newest = np.where(lengths <= length, lengths, newest)
    more = -(-(lengths - newest) // length)  # windows before the newest one
    owner = np.repeat(np.arange(len(lengths)), more + 1)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(more + 1) - (more + 1), more + 1)  # 0 is the newest
    end = lengths[owner] - np.where(number == 0, 0, newest[owner] + (number - 1) * length)
    size = np.where(number == 0, newest[owner], np.minimum(length, end))
    return owner, end - size, size
