"""What a comparison is asked for."""

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from recloop.encoders.base.errors import RecloopError
from recloop.envs.simulation.penalties import PenaltyConfig
from recloop.experiments.comparison.claims import ClaimRules
from recloop.experiments.comparison.intervals import looks_between
from recloop.experiments.settings import at_least
from recloop.experiments.stopping import seconds_of


@dataclass(frozen=True)
class CompareConfig:
    """Train what needs training, evaluate every policy on the same lanes, write tables and a report."""

    world: tyro.conf.Positional[Path]
    """World folder."""
    policies: tuple[str, ...] = ("random", "popularity", "encoder", "greedy", "sasrec", "ppo")
    """Names, groups (`recloop policies` lists both), dotted paths module:Class, or policy folders."""
    seeds: int | str = 3
    """Trainings of each policy that learns with randomness, at least 1; 3:10 adds seeds to 3, up to 10, while more may
    decide a pair."""
    out: Path = Path("runs/comparison")
    """Run folder; started again with the same settings it goes on."""
    set: tuple[str, ...] = ()
    """Settings of policies that train, policy.name=value, over their defaults, --steps and --config."""
    config: Path | None = None
    """YAML file of settings by policy."""
    steps: int = 50_000
    """Environment steps of each RL training."""
    penalties: tyro.conf.OmitArgPrefixes[PenaltyConfig] = field(default_factory=PenaltyConfig)
    """What an RL agent's training steps are charged and given on top of the reward."""
    episodes: int = 500
    """Episodes a policy is evaluated on, going round the evaluation users; at least 2."""
    reference: str | None = None
    """Policy that the others are compared to; default popularity, or the first."""
    reward: tuple[str, ...] = ()
    """What a step is worth, NAME=WEIGHT ..., or a dotted path module:function; default the world's reward."""
    rules: Path | None = None
    """YAML or JSON file of rules that every slate keeps, whoever picks it; default the world's."""
    users: tuple[str, ...] = ()
    """Further simulators to evaluate in: dotted paths module:MyUsers or installed entry points."""
    slate_size: int | None = None
    """Items a slate; default the world's."""
    evaluation_seed: int = 20_000
    """Seed of the evaluation users' luck."""
    device: str = "cpu"
    """Torch device."""
    threads: int | None = None
    """Torch threads; default OMP_NUM_THREADS, else all cores."""
    jobs: int = 1
    """Trainings side by side, in processes of one thread each; results are those of one after the other."""
    trust: bool = False
    """Let a policy folder import a class of its own."""
    fresh: bool = False
    """Forget what an earlier run of this folder finished."""
    overwrite: bool = False
    """Replace a run that was made with other settings."""
    join: bool = False
    """Help a run of the same command, from here or from another machine that shares its folder."""
    budget: str | None = None
    """Time for trainings and evaluation, 90s, 30m or 1h30m; what is finished by then is kept and compared."""
    progress: bool = True
    """Show progress bars."""
    writer: tuple[str, ...] = ()
    """Dotted paths module:MyWriter: further trackers that get what TensorBoard gets, once all is evaluated."""

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps, slate_size=self.slate_size, threads=self.threads, jobs=self.jobs)
        at_least(1, seeds=self.stages[0])
        at_least(2, episodes=self.episodes)
        seconds_of(self.budget)
        if not self.policies:
            raise RecloopError("no policies to compare; name some after --policies")

    @property
    def looks(self) -> tuple[int, ...]:
        """Numbers of seeds at which claims are looked at; () where a fixed number is asked for."""
        return () if isinstance(self.seeds, int) else _looks(self.seeds)

    @property
    def stages(self) -> tuple[int, ...]:
        """Numbers of seeds that a comparison may come to, one after the other."""
        return (self.seeds,) if isinstance(self.seeds, int) else self.looks


def _looks(text: str) -> tuple[int, ...]:
    first, _, most = text.partition(":")
    if not (first.isdecimal() and most.isdecimal()):
        raise RecloopError(f"--seeds {text} is no number of seeds; write 3, or 3:10 for three and up to ten")
    if int(first) < ClaimRules.seeds or int(most) < int(first):
        raise RecloopError(
            f"--seeds {text} is no range of seeds; it begins at {ClaimRules.seeds} or more, which a claim about a "
            "method takes, and does not fall"
        )
    return looks_between(int(first), int(most))
