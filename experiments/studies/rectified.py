"""How often a rectified judge's intervals hold, and how many live users it saves, in worlds whose truth is known.

    python -m recloop.experiments.studies.rectified clicks boredom clickbait

Users are fitted on the log that the world's switching policy wrote. Live users are drawn from the evaluate users, with
an episode each of the written-down users; the judge is the first of the fitted world, training users stand beside it.
Both know the users' logged histories. The truth is the mean of many true episodes of all evaluate users.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from recloop.agents.policy import FitOptions
from recloop.agents.registry import make_policy
from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.encoders.base.progress import progress_bar
from recloop.envs.truth import TRUTHS
from recloop.experiments.comparison.evaluate import Evaluator
from recloop.experiments.off_policy.rectified import rectified
from recloop.experiments.off_policy.rectify import judged_values
from recloop.experiments.provenance import made_by, use_threads
from recloop.experiments.report.results_table import replace_rows
from recloop.experiments.settings import at_least
from recloop.experiments.studies.agents import Place

COLUMNS = (
    "world", "simulator", "policy", "live_users", "draws", "covered_live", "covered", "judge_off", "width_live",
    "width", "saved", "command", "commit",
)  # fmt: skip
"""Of `rectified.csv`: shares of draws whose interval holds the truth; how far the judge alone is off, as a share of the
truth; mean widths; mean share of live users saved."""


@dataclass(frozen=True)
class RectifiedStudyConfig:
    """Measure rectified judges where the truth is known."""

    worlds: tyro.conf.Positional[tuple[str, ...]] = ("clicks", "boredom", "clickbait")
    """Truth worlds by name."""
    policies: tuple[str, ...] = ("random", "popularity", "greedy", "sasrec")
    """Policies by name; differences are to the first."""
    live: tuple[int, ...] = (20, 50, 100)
    """Live users."""
    draws: int = 500
    """Draws of them."""
    repeats: int = 5
    """Simulated episodes a user."""
    episodes: int = 30
    """True episodes a user."""
    keep: Path = Path("experiments/results/rectified.csv")
    """CSV into which the rows are put."""

    def __post_init__(self) -> None:
        at_least(1, draws=self.draws, repeats=self.repeats, episodes=self.episodes)
        for world in self.worlds:
            if world not in TRUTHS:
                raise RecloopError(unknown_name("truth world", world, TRUTHS))


def main(config: RectifiedStudyConfig) -> None:
    """Measure, print and keep the rows of each world."""
    use_threads(1)
    source = made_by()
    for name in config.worlds:
        rows = [{**row, **source} for row in study(name, config)]
        replace_rows(config.keep, COLUMNS, ("world", "simulator", "policy", "live_users"), rows)


def study(name: str, config: RectifiedStudyConfig) -> list[dict[str, Any]]:
    """The rows of one world."""
    place = Place.of(name, warm=True)
    users = place.world.users.rows("evaluate").numpy()
    policies = {one: make_policy(one, place.world, FitOptions(0)) for one in config.policies}
    arena = Evaluator(
        place.world, place.users, episodes=config.episodes * len(users), users=users.tolist(), seed=place.seed
    )
    true = {}
    for label, policy in progress_bar(list(policies.items()), desc=f"{name}: truth", unit="policy"):
        found = arena.run(policy)
        order = np.lexsort((np.arange(len(found.users)), found.users))
        true[label] = found.value[order].reshape(len(users), config.episodes)  # a row a user, rising
    first, rows = config.policies[0], []
    for simulator in ("train", place.world.judges[0]):
        judged = {
            label: judged_values(policy, place.world, simulator, users, config.repeats, 1).to_numpy()
            for label, policy in policies.items()
        }
        asked = [(label, true[label], judged[label]) for label in policies]
        asked += [(f"{p} - {first}", true[p] - true[first], judged[p] - judged[first]) for p in policies if p != first]
        for label, truth, told in asked:
            for live in config.live:
                rows.append({"world": name, "simulator": simulator, **_measured(label, truth, told, live, config)})
                print(rows[-1])
    return rows


def _measured(label: str, truth: Any, told: Any, live: int, config: RectifiedStudyConfig) -> dict[str, Any]:
    """One policy or difference: true episodes (U, E) of users, what the simulator makes of them (U,)."""
    rng = np.random.default_rng([live, config.draws])
    value = float(truth.mean())
    held, held_live, widths, widths_live, saved = 0, 0, [], [], []
    for _ in range(config.draws):
        users = rng.integers(0, len(truth), live)
        outcomes = truth[users, rng.integers(0, truth.shape[1], live)]
        one = rectified(outcomes, told[users], told)
        held += one.together.low <= value <= one.together.high
        held_live += one.live.low <= value <= one.live.high
        widths.append(2 * one.together.half)
        widths_live.append(2 * one.live.half)
        saved.append(one.saved)
    return {
        "policy": label,
        "live_users": live,
        "draws": config.draws,
        "covered_live": f"{held_live / config.draws:.3f}",
        "covered": f"{held / config.draws:.3f}",
        "judge_off": f"{float(told.mean()) / value - 1:+.3f}" if value else "",
        "width_live": f"{np.mean(widths_live):.3f}",
        "width": f"{np.mean(widths):.3f}",
        "saved": f"{np.mean(saved):.3f}",
    }


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(RectifiedStudyConfig, main)
