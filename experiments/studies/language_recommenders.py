"""Which way of fine-tuning a language model makes the better recommender, at equal steps, on one core?

python -m recloop.experiments.studies.language_recommenders --world worlds/ml-100k --rows ranker:lora ranker:all

The last item of every evaluate user is ranked among all items, from what they consumed before; what they have seen is
left out. A policy learns from train users alone. CPU minutes are those of the process while it fitted; slates a second
are histories that the policy meets for the first time, answered one batch after the other.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from recloop.agents import FitOptions, Policy, make_policy
from recloop.agents.baselines.next_item import evaluate_next_item
from recloop.agents.policy import ScoringPolicy
from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.envs.logs.sequences import Ints
from recloop.envs.world.world import World
from recloop.experiments.provenance import made_by
from recloop.experiments.report.results_table import replace_rows
from recloop.experiments.report.tables import wide_console
from recloop.experiments.settings import at_least

KEPT = Path(__file__).parent.parent / "results" / "language_recommenders.csv"
COLUMNS = (
    "model", "policy", "method", "trained_parameters", "total_parameters", "ndcg_10", "recall_10", "users",
    "cpu_minutes", "slates_per_second", "seed", "command", "commit",
)  # fmt: skip
ORIENTATION = ("popularity", "encoder", "sasrec")
METHODS = ("none", "head", "top", "all", "lora", "adalora", "ia3", "prefix")


@dataclass(frozen=True)
class LanguageStudyConfig:
    """Language-model recommenders by what of the model is trained, at equal steps."""

    world: Path
    """A world of MovieLens-100K, say."""
    rows: tuple[str, ...] = (*ORIENTATION, *(f"ranker:{method}" for method in METHODS))
    """What to measure: names of policies, `ranker:METHOD`, `classifier:METHOD`, `verbaliser:zero-shot` (`few-shot`,
    `lora`)."""
    steps: int = 120
    """Steps of every fine-tuning."""
    users: int | None = None
    """Evaluate users that are asked, the first by row; default all."""
    seeds: int = 1
    out: Path = KEPT
    """Table that these rows are replaced in."""
    settings: dict[str, str] = field(default_factory=dict)
    """Settings over those of every row."""

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps, users=self.users, seeds=self.seeds)
        for row in self.rows:
            name, _, method = row.partition(":")
            if row not in ORIENTATION and (name not in KINDS or method not in KINDS[name]):
                known = [*ORIENTATION, *(f"{kind}:{one}" for kind, methods in KINDS.items() for one in methods)]
                raise RecloopError(unknown_name("row", row, known))


KINDS: dict[str, tuple[str, ...]] = {
    "ranker": (*METHODS, "pretrained", "labels-1", "labels-5", "labels-20"),
    "classifier": ("head", "top", "all", "lora"),
    "verbaliser": ("zero-shot", "few-shot", "lora"),
}
"""Methods by the kind of language-model policy; `pretrained` is `all` after as many steps of the model's own task on
the log's texts, `labels-5` is `all` on the answers of 5 % of the train users."""


def main(config: LanguageStudyConfig) -> list[dict[str, Any]]:
    """Measure row by row, keep each as it comes, and print them."""
    torch.set_num_threads(1)
    world = World.load(config.world)
    users = world.users.rows("evaluate").numpy()[: config.users]
    rows = []
    for seed in range(config.seeds):
        for row in config.rows:
            rows.append({**measured(row, world, users, config, seed), **made_by()})
            replace_rows(config.out, COLUMNS, ("model", "policy", "method", "users", "seed"), rows[-1:])
    _print(rows)
    return rows


def measured(row: str, world: World, users: Ints, config: LanguageStudyConfig, seed: int) -> dict[str, Any]:
    """Fit one policy, rank, and time it."""
    name, _, method = row.partition(":")
    own = method != ""
    settings = {**settings_of(name, method, config), **config.settings} if own else {}
    began = time.process_time()
    policy = make_policy(f"lm-{name}" if own else name, world, FitOptions(seed=seed, settings=settings))
    minutes = (time.process_time() - began) / 60
    began = time.perf_counter()
    found = evaluate_next_item(
        scorer(policy, world, users), world.sequences, users, length=world.users.history.shape[1], batch=len(users)
    )
    seconds = time.perf_counter() - began
    trained, total = getattr(policy, "parameter_counts", (0, 0))
    return {
        "model": getattr(getattr(policy, "settings", None), "model", "") if own else "",
        "policy": policy.name,
        "method": method,
        "trained_parameters": trained,
        "total_parameters": total,
        "ndcg_10": round(found.ndcg, 4),
        "recall_10": round(found.recall, 4),
        "users": found.users,
        "cpu_minutes": round(minutes, 2),
        "slates_per_second": round(found.users / seconds, 1),
        "seed": seed,
    }


def settings_of(name: str, method: str, config: LanguageStudyConfig) -> Mapping[str, Any]:
    """What a row changes of its policy's defaults."""
    steps = {"tuning.steps": config.steps, "tuning.validations": 4}
    if name == "verbaliser" and method != "lora":
        return {"shots": 3 if method == "few-shot" else 0}
    if method == "pretrained":
        return {"tuning.method": "all", "tuning.pretraining": config.steps, **steps}
    if method.startswith("labels-"):
        return {"tuning.method": "all", "tuning.labelled": int(method.removeprefix("labels-")) / 100, **steps}
    return {"tuning.method": method, **steps}


def scorer(policy: Policy, world: World, users: Ints) -> Any:
    """Scores of a policy for the histories of all `users` at once, as `evaluate_next_item` asks for them."""
    if not isinstance(policy, ScoringPolicy):
        raise RecloopError(f"policy '{policy.name}' has no scores of all items; take another")
    kept = users[world.sequences.lengths[users] >= 2]
    ends = world.sequences.lengths[kept] - 1

    def score(history: Tensor) -> Tensor:
        _, feedback = world.sequences.last(kept, history.shape[1], ends)
        encoder = world.state_encoder
        state = encoder.vector(encoder.start(world.users.profile[kept], history, feedback))
        return policy.scores({"history": history, "state": state, "action_mask": ~_seen(world, kept, ends)})

    return score


def _seen(world: World, users: Ints, ends: Ints) -> Tensor:
    """bool (B, N): what the users consumed before their last item."""
    seen = torch.zeros(len(users), len(world.catalogue) + 1, dtype=torch.bool)
    history, _ = world.sequences.last(users, int(ends.max()), ends)
    return seen.scatter(1, history, True)[:, :-1]


def _print(rows: Sequence[Mapping[str, Any]]) -> None:
    shown = Table(title="Language-model recommenders", title_justify="left")
    names = COLUMNS[:-2]
    for name in names:
        shown.add_column(name, justify="left" if name in names[:3] else "right")
    for row in rows:
        shown.add_row(*(str(row[name]) for name in names))
    wide_console().print(shown)


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(LanguageStudyConfig, main)
