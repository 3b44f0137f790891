"""A comparison in TensorBoard, where policies are compared: `tensorboard --logdir runs/NAME/tensorboard`.

| run | what stands there |
|---|---|
| `.` | the verdict and the world's card (text), pictures of all policies, the layout of the custom scalars |
| `ppo` | evaluation over all its trainings, what is claimed of it, one session; its mean validation curve |
| `ppo/seed0` | one training: its curves, its settings and what it earns (hparams) |

What a policy earns once it is made is a line from the first training step to the last of the longest training, so that
all, trained among the users or not, can be compared at a glance. A policy without seeds of its own has one run.

A writer of your own gets the same, and the curves of the trainings: `recloop compare ... --writer my_module:MyWriter`.
"""

import io
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recloop.agents.registry import facts_of
from recloop.encoders.base.errors import RecloopError
from recloop.encoders.base.names import visible
from recloop.envs.skins.rendering import Scene, answer_text, render_rgb, short_title
from recloop.experiments.comparison.claims import Claim
from recloop.experiments.comparison.evaluate import Floats
from recloop.experiments.comparison.results import Comparison, Entry, Headline
from recloop.experiments.comparison.tracking import Tags, filled, training_run
from recloop.experiments.comparison.verdict import verdict_of
from recloop.experiments.report.pictures import picture
from recloop.experiments.report.tables import simulator_in_words

SESSION_STEPS = 5
"""Slates of a session that are drawn."""

Pixels = npt.NDArray[np.uint8]


class RunWriter:
    """Takes what TensorBoard shows of a comparison; write your own for another tracker, `scalar` is all it needs.

    `run` names a policy, `policy/seedN` one of its trainings, and `.` the comparison; tags are those of
    `recloop.experiments.comparison.tracking`.
    """

    def scalar(self, run: str, tag: str, value: float, step: int) -> None:
        """One point of a curve."""
        raise NotImplementedError

    def text(self, run: str, tag: str, words: str) -> None:
        """Markdown."""

    def image(self, run: str, tag: str, pixels: Pixels, step: int) -> None:
        """A picture, uint8 (H, W, 3)."""

    def histogram(self, run: str, tag: str, values: Floats, step: int) -> None:
        """Numbers whose distribution is of interest, (n,)."""

    def settings(self, run: str, settings: Mapping[str, str | float | bool], figures: Mapping[str, float]) -> None:
        """What a training was made with, and what it came to, by the tags that also are scalars of the run."""

    def layout(self, charts: Mapping[str, Mapping[str, tuple[str, Sequence[str]]]]) -> None:
        """Charts by section and title: `Multiline` of tags, or `Margin` of a tag and the ends of its interval."""

    def close(self) -> None:
        """Everything has been handed over."""


class TensorBoardWriter(RunWriter):
    """Event files beside those of the trainings; what an earlier evaluation wrote there goes.

    Args:
        folder: of the runs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writers: dict[str, Any] = {}
        for stale in folder.rglob("*.evaluation"):
            stale.unlink()

    def scalar(self, run: str, tag: str, value: float, step: int) -> None:
        """As `RunWriter` says."""
        self._of(run).add_scalar(tag, value, step)

    def text(self, run: str, tag: str, words: str) -> None:
        """As `RunWriter` says."""
        self._of(run).add_text(tag, words)

    def image(self, run: str, tag: str, pixels: Pixels, step: int) -> None:
        """As `RunWriter` says."""
        self._of(run).add_image(tag, pixels, step, dataformats="HWC")

    def histogram(self, run: str, tag: str, values: Floats, step: int) -> None:
        """As `RunWriter` says."""
        self._of(run).add_histogram(tag, values, step)

    def settings(self, run: str, settings: Mapping[str, str | float | bool], figures: Mapping[str, float]) -> None:
        """As `RunWriter` says."""
        from torch.utils.tensorboard.summary import hparams

        for summary in hparams(dict(settings), dict(figures)):  # type: ignore[no-untyped-call]
            self._of(run).file_writer.add_summary(summary)

    def layout(self, charts: Mapping[str, Mapping[str, tuple[str, Sequence[str]]]]) -> None:
        """As `RunWriter` says."""
        self._of(".").add_custom_scalars(
            {
                section: {title: [kind, list(tags)] for title, (kind, tags) in of.items()}
                for section, of in charts.items()
            }
        )

    def close(self) -> None:
        """As `RunWriter` says."""
        for writer in self._writers.values():
            writer.close()

    def _of(self, run: str) -> Any:
        from torch.utils.tensorboard.writer import SummaryWriter

        if run not in self._writers:
            place = str(self.folder / run)
            self._writers[run] = SummaryWriter(place, filename_suffix=".evaluation")
        return self._writers[run]


def made_writer(path: str) -> RunWriter:
    """A writer of your own by dotted path, made without arguments.

    Raises:
        RecloopError: where there is none, or what is there is no `RunWriter`.
    """
    module, _, name = path.partition(":")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise RecloopError(f"--writer {path}: {error}; give module:MyWriter, a class that can be imported") from error
    if not (isinstance(found, type) and issubclass(found, RunWriter)):
        raise RecloopError(f"--writer {path} is no class of recloop.experiments.report.tensorboard.RunWriter")
    return found()


def write_runs(writer: RunWriter, comparison: Comparison, claims: Sequence[Claim]) -> None:
    """Hand a comparison to a writer, all but the curves of its trainings, and close it."""
    last = _last_step(comparison)
    writer.layout(charts(comparison))
    writer.text(".", Tags.comparison_verdict, _verdict_text(comparison, claims))
    writer.image(".", Tags.comparison_picture, _pixels(picture(comparison)), 0)
    for contender in comparison.contenders:
        _write_policy(writer, comparison, contender, last)
        said = [f"- {visible(claim.text)}" for claim in claims if contender.label in (claim.better, claim.worse)]
        writer.text(contender.label, Tags.comparison_verdict, "\n".join(said) or "nothing to claim it against")
    writer.close()


def write_curves(writer: RunWriter, comparison: Comparison) -> None:
    """Hand the curves of the trainings to a writer that did not see them; what was tried once is in `write_runs`."""
    for contender in comparison.contenders:
        for seed in comparison.seeds if contender.retrained else comparison.seeds[:1]:
            for tag, curve in comparison.curves.get((contender.label, seed), {}).items():
                for step, value in curve if tag != Tags.validation_return or len(curve) > 1 else ():
                    writer.scalar(training_run(contender, seed), tag, value, step)


def charts(comparison: Comparison) -> dict[str, dict[str, tuple[str, Sequence[str]]]]:
    """What the custom scalars open on: who earns more, by how much, how sure, judges first; then how it was learned."""
    found: dict[str, dict[str, tuple[str, Sequence[str]]]] = {}
    for name in (*comparison.simulators[1:], comparison.base):
        titles = {"return": Tags.evaluate_return, f"minus {comparison.reference}": Tags.evaluate_difference}
        tags = {title: filled(tag, name) for title, tag in titles.items()}
        found[f"In front of {simulator_in_words(comparison, name)}"] = {
            f"{title}, {name}": ("Margin", [tag, f"{tag}_low", f"{tag}_high"]) for title, tag in tags.items()
        }
    found["Learning"] = {
        "the same users, again and again": ("Multiline", [Tags.validation_return]),
        "training users, the same episodes": ("Multiline", [filled(Tags.evaluate_return, comparison.base)]),
        "training users, exploring": ("Multiline", [Tags.train_return]),
    }
    return found


def _last_step(comparison: Comparison) -> int:
    """The last step of the longest training among the users; 1 without any."""
    ends = [
        curve[-1][0]
        for contender in comparison.contenders
        if facts_of(contender.source).trains == "loop"
        for seed in comparison.seeds
        if (curve := comparison.curves.get((contender.label, seed), {}).get(Tags.validation_return))
    ]
    return max(ends, default=1)


def _write_policy(writer: RunWriter, comparison: Comparison, contender: Entry, last: int) -> None:
    """Evaluation of a policy over its trainings, each training's own, and one session."""
    label = contender.label
    curves = [comparison.curves.get((label, seed), {}).get(Tags.validation_return, []) for seed in comparison.seeds]
    learns = facts_of(contender.source).trains == "loop" and all(len(curve) > 1 for curve in curves)
    steps = (0, last)
    if learns and len(curves) > 1:
        shared = set.intersection(*({step for step, _ in curve} for curve in curves))
        for step in sorted(shared):
            writer.scalar(label, Tags.validation_return, float(np.mean([dict(curve)[step] for curve in curves])), step)
    elif not learns and all(curves):
        mean = float(np.mean([curve[-1][1] for curve in curves]))
        for step in steps:
            writer.scalar(label, Tags.validation_return, mean, step)
    for simulator in comparison.simulators:
        found = _evaluated(comparison.headline(label, simulator))
        for step in steps:
            for tag, value in found.items():
                writer.scalar(label, tag, value, step)
        writer.histogram(label, filled(Tags.evaluate_users, simulator), comparison.values(label, simulator), steps[-1])
    for seed in comparison.seeds if contender.retrained else comparison.seeds[:1]:
        _write_training(writer, comparison, contender, seed, steps[-1])
    for number, scene in enumerate(scenes(comparison, label)):
        writer.image(label, Tags.comparison_session, render_rgb(scene), number)


def _evaluated(line: Headline) -> dict[str, float]:
    """The scalars of one policy in one simulator, by tag."""
    found = {
        Tags.evaluate_return: line.value.mean,
        Tags.evaluate_return_low: line.value.low,
        Tags.evaluate_return_high: line.value.high,
    }
    if line.difference is not None:
        found[Tags.evaluate_difference] = line.difference.mean
        found[Tags.evaluate_difference_low] = line.difference.low
        found[Tags.evaluate_difference_high] = line.difference.high
    signals = {filled(Tags.evaluate_signal, line.simulator, name): value for name, value in line.signals.items()}
    return {**{filled(tag, line.simulator): value for tag, value in found.items()}, **signals}


def _write_training(writer: RunWriter, comparison: Comparison, contender: Entry, seed: int, step: int) -> None:
    """What one training was made with, and what it earns."""
    run, facts = training_run(contender, seed), facts_of(contender.source)
    figures: dict[str, float] = {}
    for name in comparison.simulators:
        figures[filled(Tags.evaluate_return, name)] = float(comparison.values(contender.label, name, seed).mean())
        if contender.label != comparison.reference:
            difference = comparison.difference(contender.label, comparison.reference, name, seed)
            figures[filled(Tags.evaluate_difference, name)] = float(difference.mean())
    if contender.retrained:
        curves = comparison.curves.get((contender.label, seed), {})
        tried = curves.get(Tags.validation_return, [])
        once = {Tags.validation_return: tried[0][1]} if len(tried) == 1 else {}
        for tag, value in {**figures, **once}.items():
            writer.scalar(run, tag, value, step + (tag in figures and tag in curves))  # behind what it was watched by
    kept = {name: _number_or_text(value) for name, value in contender.settings.items()}
    bracket = comparison.bracket(contender.label)
    backed = "nobody looked" if bracket is None else "no" if bracket.flag else "yes"
    told = {"policy": contender.label, "group": facts.group, "learns from": facts.trains, "backed by the log": backed}
    writer.settings(run, {**told, **kept}, figures)


def _number_or_text(value: Any) -> float | str:
    """A setting as hparams take it: settings of the command line are text."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value)


def _verdict_text(comparison: Comparison, claims: Sequence[Claim]) -> str:
    """Verdict, claims and card in Markdown."""
    card, made = comparison.world.card, [claim for claim in claims if claim.made]
    parts = [f"**{visible(verdict_of(comparison, claims))}**", f"{len(made)} of {len(claims)} pairs are claimed."]
    parts.append("\n".join(f"- {visible(claim.text)}" for claim in made))
    for title, lines in (("Learned", card.learned), ("Assumed", card.assumed), ("Not claimed", card.not_claimed)):
        parts.append("\n".join([f"**{title}**", "", *(f"- {visible(line)}" for line in lines)]))
    return "\n\n".join(part for part in parts if part)


def scenes(comparison: Comparison, label: str) -> list[Scene]:
    """The first slates of one session in front of the last simulator; the same user and luck for every policy."""
    world, simulator = comparison.world, comparison.simulators[-1]
    rollout = comparison.rollouts[label, comparison.seeds[0], simulator]
    titles, items = world.catalogue.titles, len(world.catalogue)
    recent = [row for row in rollout.trace_history.tolist() if row < items]
    found = []
    for step in range(min(len(rollout.trace_slate), SESSION_STEPS)):
        rows, given = rollout.trace_slate[step].tolist(), rollout.trace_given[step]
        signals = rollout.trace_signals[step]
        taken = tuple(bool(given[place, 0]) and signals[place, 0] > 0.5 for place in range(len(rows)))
        answers = tuple(
            "  ".join(
                answer_text(signal, float(signals[place, i]))
                for i, signal in enumerate(world.signals)
                if given[place, i]
            )
            for place in range(len(rows))
        )
        found.append(
            Scene(
                heading=visible(f"{label} in {world.name}: user {world.users.ids[int(rollout.users[0])]}, {simulator}"),
                progress=f"slate {step + 1} of {len(rollout.trace_slate)}",
                recent=tuple(short_title(titles[row]) for row in recent[-8:]),
                slate=tuple(short_title(titles[row]) if row < items else "" for row in rows),
                answers=answers,
                consumed=taken,
                state=rollout.trace_state[step],
            )
        )
        recent += [row for row, took in zip(rows, taken, strict=True) if took]
    return found


def _pixels(png: bytes) -> Pixels:
    """A PNG as uint8 (H, W, 3)."""
    from matplotlib.image import imread

    return np.asarray(imread(io.BytesIO(png))[..., :3] * 255, dtype=np.uint8)
