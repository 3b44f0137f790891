"""What TensorBoard shows: every tag in one place. The tags are a public contract; this is their table.

| tag | what | unit |
|---|---|---|
| `train/return` | mean return of the last 100 training episodes that ended, in the training users | reward |
| `train/length` | mean length of those episodes | slates, or picks where an agent picks one at a time |
| `train/loss` | loss of the fit, as the learner defines it | nats, or reward squared |
| `train/loss/NAME` | a named part of that loss (policy, value, entropy) | as above |
| `train/steps_per_second` | training speed | training steps a second |
| `train/NAME` | anything further that a learner reports (learning_rate, entropy) | its own |
| `validation/return` | mean return on the same tune users, with the same luck, in the validation simulator | reward |
| `validation/gain` | best of these so far less the first, of the start: 0 where nothing better was learned | reward |
| `validation/loss` | loss on held-out behaviour of the train users | nats |
| `evaluate/SIMULATOR/return` | mean return on the evaluation users; while it learns, in 128 episodes | reward |
| `evaluate/SIMULATOR/return_low`, `evaluate/SIMULATOR/return_high` | ends of its 95 % interval over users | reward |
| `evaluate/SIMULATOR/difference` | paired difference of returns to the reference policy | reward |
| `evaluate/SIMULATOR/difference_low`, `evaluate/SIMULATOR/difference_high` | ends of its interval | reward |
| `evaluate/SIMULATOR/signal/NAME` | mean total of a signal an episode | signal's own |
| `evaluate/SIMULATOR/users` | histogram: mean return of each evaluation user | reward |
| `comparison/verdict` | text: the verdict, what is claimed of the policy, the world's card | |
| `comparison/picture` | image: returns and training curves of all policies | |
| `comparison/session` | image: slate, answer and state of one session, step by step | |

The x axis is the training step. `compare` writes a run a policy and, below it, one a training (`ppo`, `ppo/seed0`);
`recloop.experiments.report.tensorboard` says what stands where.
"""

import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from recloop.agents.policy import Policy
from recloop.envs.world.world import World
from recloop.experiments.comparison.evaluate import Evaluator
from recloop.experiments.comparison.results import Curve, Entry

WATCHED = 128
"""Episodes in which a policy is watched as it trains."""


class Tags:
    """Every TensorBoard tag; upper-case words are filled in."""

    train_return = "train/return"
    train_length = "train/length"
    train_loss = "train/loss"
    train_loss_part = "train/loss/NAME"
    train_speed = "train/steps_per_second"
    train_other = "train/NAME"
    validation_return = "validation/return"
    validation_gain = "validation/gain"
    validation_loss = "validation/loss"
    evaluate_return = "evaluate/SIMULATOR/return"
    evaluate_return_low = "evaluate/SIMULATOR/return_low"
    evaluate_return_high = "evaluate/SIMULATOR/return_high"
    evaluate_difference = "evaluate/SIMULATOR/difference"
    evaluate_difference_low = "evaluate/SIMULATOR/difference_low"
    evaluate_difference_high = "evaluate/SIMULATOR/difference_high"
    evaluate_signal = "evaluate/SIMULATOR/signal/NAME"
    evaluate_users = "evaluate/SIMULATOR/users"
    comparison_verdict = "comparison/verdict"
    comparison_picture = "comparison/picture"
    comparison_session = "comparison/session"

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
    return tag if tag.startswith(("train/", "validation/", "evaluate/")) else f"train/{tag.rpartition('/')[2]}"


def training_watch(world: World, *, episodes: int, **asked: Any) -> Callable[[Policy], dict[str, float]]:
    """For `FitOptions.watch`: what a policy earns from the training users, in the same episodes with every call.

    Args:
        world: where it trains.
        episodes: of the evaluation; the first `WATCHED` of them at most, for the time it takes.
        asked: further arguments of `Evaluator`, so that these are the episodes that the trained policy is evaluated on.
    """
    arenas: list[Evaluator] = []  # made when somebody asks

    def watch(policy: Policy) -> dict[str, float]:
        if not arenas:
            bare = replace(world, support=None)
            arenas.append(Evaluator(bare, world.training_simulator, episodes=min(episodes, WATCHED), **asked))
        return {filled(Tags.evaluate_return, world.training_simulator): float(arenas[0].run(policy).value.mean())}

    return watch


def training_run(contender: Entry, seed: int) -> str:
    """The run of one training; a policy without seeds of its own has but one."""
    return f"{contender.label}/seed{seed}" if contender.retrained else contender.label


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
