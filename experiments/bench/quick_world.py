"""How long the quick built-in world takes to make, and what policies earn among its users.

    python -m recloop.experiments.bench.quick_world
    python -m recloop.experiments.bench.quick_world --seeds 5 --episodes 1000

CPU seconds of one thread, after one world that is not counted. Returns are of the `evaluate` users in the truth, which
is the world's own simulator, with 95 % intervals over users; the difference is paired by user.
"""

import time
from dataclasses import dataclass, replace

from recloop.agents.registry import make_policy
from recloop.envs.truth.built_in import QUICK, boredom_world
from recloop.experiments.comparison.evaluate import Evaluator
from recloop.experiments.comparison.intervals import by_user, t_interval
from recloop.experiments.provenance import use_threads
from recloop.experiments.report.tables import wide_console
from recloop.experiments.settings import at_least


@dataclass(frozen=True)
class QuickWorldConfig:
    """Make the quick built-in world from several seeds."""

    seeds: int = 3
    """Worlds; an environment without a `world` is in that of seed 0."""
    episodes: int = 400
    """Episodes of each policy."""

    def __post_init__(self) -> None:
        at_least(1, seeds=self.seeds)
        at_least(2, episodes=self.episodes)


def main(config: QuickWorldConfig) -> list[float]:
    """Print a line a world; the seconds that each took."""
    use_threads(1)
    console, seconds = wide_console(), []
    boredom_world(QUICK)
    for seed in range(config.seeds):
        begin = time.process_time()
        world = boredom_world(replace(QUICK, seed=seed))
        seconds.append(time.process_time() - begin)
        arena = Evaluator(world, "truth", episodes=config.episodes, users="evaluate", seed=1)
        found = {name: arena.run(make_policy(name, world)) for name in ("random", "popularity", "greedy")}
        value = {name: by_user(one.value, one.users) for name, one in found.items()}
        told = ", ".join(f"{name} {t_interval(one)}" for name, one in value.items())
        difference = t_interval(value["greedy"] - value["popularity"])
        line = f"seed {seed}: made in {seconds[-1]:.1f} s; {told}; greedy minus popularity {difference}"
        console.print(line, soft_wrap=True)
    return seconds


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(QuickWorldConfig, main)
