"""The loop in a few minutes, without any data: users who are written down, so that the best policy is known.

    recloop demo
    recloop demo --steps 20000 --seeds 1 --out runs/quick

Makes the built-in truth world, compares random, popularity, the state encoder's own order, greedy on a fitted user
model, SASRec and PPO over proposed slates with a planner that knows the truth, and says what share of the gap between
greedy and that optimum the agent closes.
"""

from dataclasses import dataclass
from pathlib import Path

from recloop.envs.simulation.core import checked_device
from recloop.envs.truth.built_in import demo_world
from recloop.experiments.commands.compare import compare
from recloop.experiments.comparison.claims import claims_of
from recloop.experiments.comparison.config import CompareConfig
from recloop.experiments.comparison.intervals import Interval, ratio_interval
from recloop.experiments.comparison.results import Comparison
from recloop.experiments.comparison.verdict import verdict_of
from recloop.experiments.output import writing
from recloop.experiments.provenance import use_threads
from recloop.experiments.report.tables import print_comparison, wide_console
from recloop.experiments.settings import at_least

AGENT = "slate-ppo"
POLICIES = ("random", "popularity", "encoder", "greedy", "sasrec", AGENT, "planner")


@dataclass(frozen=True)
class DemoConfig:
    """Compare six policies and the computed optimum in the built-in truth world."""

    out: Path = Path("runs/demo")
    """Run folder; the world is saved in its folder `world`."""
    steps: int = 100_000
    """Environment steps of each training of the agent."""
    seeds: int = 1
    """Trainings of SASRec and the agent."""
    episodes: int = 600
    """Episodes a policy is evaluated on."""
    device: str = "cpu"
    """Torch device."""
    threads: int | None = None
    """Torch threads; default OMP_NUM_THREADS, else all cores."""
    fresh: bool = False
    """Forget what an earlier run of this folder finished."""
    overwrite: bool = False
    """Replace a run that was made with other settings."""
    progress: bool = True
    """Show progress bars."""

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps, seeds=self.seeds, threads=self.threads)
        at_least(2, episodes=self.episodes)


def main(config: DemoConfig) -> Comparison:
    """Make the world, compare, print the table and the verdicts."""
    use_threads(config.threads)
    checked_device(config.device)
    with writing(config.out):
        return _demo(config)


def _demo(config: DemoConfig) -> Comparison:
    console, notes = wide_console(), wide_console(stderr=True)
    world = demo_world(progress=config.progress, say=lambda line: notes.print(line, style="bold"))
    folder = config.out / "world"
    world.save(folder)
    comparison = compare(
        world,
        CompareConfig(
            world=folder,
            policies=POLICIES,
            seeds=config.seeds,
            out=config.out,
            steps=config.steps,
            episodes=config.episodes,
            device=config.device,
            threads=config.threads,
            fresh=config.fresh,
            overwrite=config.overwrite,
            progress=config.progress,
        ),
    )
    claims = claims_of(comparison)
    print_comparison(comparison, claims, config.out, console)
    console.print(gap_sentence(comparison), soft_wrap=True)
    console.print(verdict_of(comparison, claims), soft_wrap=True)
    return comparison


def gap_sentence(comparison: Comparison) -> str:
    """How much of what there is to be gained is gained, beside what `comparison.claims` claims."""
    share = gap_closed(comparison)
    return (
        f"{AGENT} closes {share.mean:.0%} [{share.low:.0%}, {share.high:.0%}] of the gap between greedy and the "
        "computed optimum"
    )


def gap_closed(comparison: Comparison, policy: str = AGENT, floor: str = "greedy", top: str = "planner") -> Interval:
    """Share of the gap from `floor` to `top` that `policy` closes, with Fieller's interval over users."""
    base = comparison.base
    return ratio_interval(comparison.difference(policy, floor, base), comparison.difference(top, floor, base))


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(DemoConfig, main)
