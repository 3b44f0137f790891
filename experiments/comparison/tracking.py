"""What TensorBoard shows: every tag in one place. The tags are a public contract; this is their table.

| tag | what | unit |
|---|---|---|
| `train/return` | mean return of the last 100 training episodes that ended, in the training users | reward |
| `train/length` | mean length of those episodes | slates, or picks where an agent picks one at a time |
| `train/loss` | loss of the fit, as the learner defines it | nats, or reward squared |
| `train/loss/NAME` | a named part of that loss (policy, value, entropy) | as above |
| `train/learning_rate` | step size of the optimizer | 1 |
| `train/steps_per_second` | training speed | training steps a second |
| `train/NAME` | anything further that a learner reports | its own |
| `validation/return` | mean return on the tune users in the validation simulator | reward |
| `validation/gain` | best of these so far less the first, of the start: 0 where nothing better was learned | reward |
| `validation/loss` | loss on held-out behaviour of the train users | nats |
| `evaluate/SIMULATOR/return` | mean return on the evaluation users | reward |
| `evaluate/SIMULATOR/difference` | paired difference of returns to the reference policy | reward |
| `evaluate/SIMULATOR/p_improve` | probability that a user is better served than by the reference | 0 to 1 |
| `evaluate/SIMULATOR/length` | mean length of an episode | slates |
| `evaluate/SIMULATOR/left` | share of episodes that the user ended | 0 to 1 |
| `evaluate/SIMULATOR/coverage` | share of the catalogue shown at least once | 0 to 1 |
| `evaluate/SIMULATOR/popularity` | mean popularity of what was shown | times the average item |
| `evaluate/SIMULATOR/diversity` | one minus the mean cosine within a slate | 0 to 2 |
| `evaluate/SIMULATOR/invalid` | places left empty as repeated or forbidden | places an episode |
| `evaluate/SIMULATOR/outside` | share of slates outside the log's support, in a world that has one | 0 to 1 |
| `evaluate/SIMULATOR/pessimistic` | what the return may be at worst, given what the log leaves open; too | reward |
| `evaluate/SIMULATOR/optimistic` | what it may be at best; too | reward |
| `evaluate/SIMULATOR/signal/NAME` | mean total of a signal an episode | signal's own |
| `claims` | what is claimed of the policy, by the rule of `comparison.claims` | text |

The x axis is the training step; evaluations stand at the last one.
One run a policy and seed: `tensorboard --logdir runs/NAME/tensorboard`.
"""

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recloop.experiments.comparison.claims import Claim
from recloop.experiments.comparison.results import Comparison, Curve


class Tags:
    """Every TensorBoard tag; upper-case words are filled in."""

    train_return = "train/return"
    train_length = "train/length"
    train_loss = "train/loss"
    train_loss_part = "train/loss/NAME"
    train_learning_rate = "train/learning_rate"
    train_speed = "train/steps_per_second"
    train_other = "train/NAME"
    validation_return = "validation/return"
    validation_gain = "validation/gain"
    validation_loss = "validation/loss"
    evaluate_return = "evaluate/SIMULATOR/return"
    evaluate_difference = "evaluate/SIMULATOR/difference"
    evaluate_p_improve = "evaluate/SIMULATOR/p_improve"
    evaluate_length = "evaluate/SIMULATOR/length"
    evaluate_left = "evaluate/SIMULATOR/left"
    evaluate_coverage = "evaluate/SIMULATOR/coverage"
    evaluate_popularity = "evaluate/SIMULATOR/popularity"
    evaluate_diversity = "evaluate/SIMULATOR/diversity"
    evaluate_invalid = "evaluate/SIMULATOR/invalid"
    evaluate_outside = "evaluate/SIMULATOR/outside"
    evaluate_pessimistic = "evaluate/SIMULATOR/pessimistic"
    evaluate_optimistic = "evaluate/SIMULATOR/optimistic"
    evaluate_signal = "evaluate/SIMULATOR/signal/NAME"
    claims = "claims"

    @classmethod
    def all(cls) -> tuple[str, ...]:
        """Every tag, as the table in this module lists them."""
        return tuple(v for k, v in vars(cls).items() if isinstance(v, str) and not k.startswith("_"))


def filled(tag: str, simulator: str = "", name: str = "") -> str:
    """A tag with its upper-case words filled in.

    >>> filled(Tags.evaluate_signal, simulator="judge", name="rating")
    'evaluate/judge/signal/rating'
    """
    return tag.replace("SIMULATOR", simulator).replace("NAME", name)


LEARNERS_TAGS = {
    "rollout/ep_rew_mean": Tags.train_return,
    "rollout/ep_len_mean": Tags.train_length,
    "train/policy_gradient_loss": filled(Tags.train_loss_part, name="policy"),
    "train/policy_loss": filled(Tags.train_loss_part, name="policy"),
    "train/value_loss": filled(Tags.train_loss_part, name="value"),
    "train/entropy_loss": filled(Tags.train_loss_part, name="entropy"),
    "time/fps": Tags.train_speed,
}
"""What learners call their curves, where the contract has a name for it: one picture for all of them."""


def contract_tag(tag: str) -> str:
    """A learner's tag as the contract writes it: what has no name there goes under `train/`.

    >>> contract_tag("rollout/ep_rew_mean"), contract_tag("train/approx_kl"), contract_tag("rollout/exploration_rate")
    ('train/return', 'train/approx_kl', 'train/exploration_rate')
    """
    if tag in LEARNERS_TAGS:
        return LEARNERS_TAGS[tag]
    return tag if tag.startswith(("train/", "validation/")) else f"train/{tag.rpartition('/')[2]}"


class Run:
    """One TensorBoard run: writes scalars and keeps them as curves for the report.

    Args:
        folder: where the event files go. The first point removes those of an earlier run, unless the run goes on.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.curves: dict[str, Curve] = {}
        self._writer: Any = None
        self._from = -1

    def go_on(self, step: int) -> None:
        """Keep what an earlier run logged up to `step`, purge what it logged beyond, and go on from there."""
        self.curves = logged_curves(self.folder, step)
        self._from = step
        self._open(purge_step=step + 1)

    def log(self, tag: str, value: float, step: int) -> None:
        """Write one point; the callback that training gets. A point that the earlier run has is not written twice."""
        if self._writer is None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._open()
        tag, step = contract_tag(tag), int(step)
        curve = self.curves.setdefault(tag, [])
        if step <= self._from and (step, float(np.float32(value))) in curve:  # as event files keep it
            return
        self._writer.add_scalar(tag, float(value), step)
        curve.append((step, float(value)))
        if tag == Tags.validation_return:
            self.log(Tags.validation_gain, max(found for _, found in curve) - curve[0][1], step)

    @property
    def last_step(self) -> int:
        """The last training step that was logged; 0 without training."""
        return max((curve[-1][0] for curve in self.curves.values()), default=0)

    def close(self) -> None:
        """Flush the event file; without a point it is there too, and empty."""
        if self._writer is None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._open()
        self._writer.close()

    def _open(self, **options: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self.folder.mkdir(parents=True, exist_ok=True)
        self._writer = SummaryWriter(str(self.folder), **options)

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type[BaseException] | None, *reason: object) -> None:
        if kind is None or self._writer is not None:  # what failed before its first point leaves what was there
            self.close()


def kept_start(curves: Mapping[str, Curve]) -> bool:
    """Whether a training was tried again and again, and never found better than before it learned anything."""
    found = [value for _, value in curves.get(Tags.validation_return, [])]
    return len(found) > 1 and max(found) <= found[0]


def logged_curves(folder: Path, last: int) -> dict[str, Curve]:
    """The scalars in a run's event files by tag, up to the step `last`."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not folder.is_dir():
        return {}
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # that points were purged is no news
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    curves = {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return {tag: [point for point in curve if point[0] <= last] for tag, curve in curves.items()}


def write_evaluations(comparison: Comparison, claims: Sequence[Claim], folder: Path) -> None:
    """Add evaluation scalars and claims of every policy and seed beside its training curves, each in an event file."""
    from torch.utils.tensorboard.writer import SummaryWriter

    rows = comparison.rows()
    numbers = {
        "value": Tags.evaluate_return,
        "difference": Tags.evaluate_difference,
        "p_improve": Tags.evaluate_p_improve,
        "length": Tags.evaluate_length,
        "left": Tags.evaluate_left,
        "coverage": Tags.evaluate_coverage,
        "popularity": Tags.evaluate_popularity,
        "diversity": Tags.evaluate_diversity,
        "invalid": Tags.evaluate_invalid,
        "outside": Tags.evaluate_outside,
        "pessimistic": Tags.evaluate_pessimistic,
        "optimistic": Tags.evaluate_optimistic,
    }
    for label in comparison.labels:
        for seed in comparison.seeds:
            run = folder / f"{label}-seed{seed}"
            for stale in run.glob("*.evaluation"):
                stale.unlink()
            curves = comparison.curves.get((label, seed), {})
            step = max((curve[-1][0] for curve in curves.values() if curve), default=0)
            writer: Any = SummaryWriter(str(run), filename_suffix=".evaluation")
            for row in rows:
                if (row["policy"], row["seed"]) != (label, str(seed)):
                    continue
                for column, tag in numbers.items():
                    if column in row:  # nothing is known of the support in a world without a support model
                        writer.add_scalar(filled(tag, row["simulator"]), float(row[column]), step)
                for signal in comparison.world.signals:
                    tag = filled(Tags.evaluate_signal, row["simulator"], signal.name)
                    writer.add_scalar(tag, float(row[f"signal:{signal.name}"]), step)
            said = [f"- {claim.text}" for claim in claims if label in (claim.better, claim.worse)]
            writer.add_text(Tags.claims, "\n".join(said), step)
            writer.close()
