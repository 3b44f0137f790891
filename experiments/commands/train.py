"""Train one policy in a world and keep it.

    recloop train worlds/ml-100k --agent ppo --steps 200000 --seed 0 --out policies/ppo
    recloop train worlds/ml-100k --agent recloop-ppo --checkpoint checkpoints/ppo --out policies/recloop-ppo
    recloop train worlds/ml-100k --agent recloop-ppo --set learning_rate=3e-4 network.hidden=128 --out policies/wide
    recloop train --agent recloop-ppo --help
    recloop train worlds/ml-100k --agent sb3:SAC --set tau=0.01 --out policies/sac
    recloop train worlds/shop --agent ppo --reward purchase=1 click=0.1 leaving=-0.5 --out policies/sales
    recloop train worlds/shop --agent ppo --users my_module:MyUsers --out policies/in-my-users
    recloop train worlds/shop --agent ppo --rules rules.yaml --out policies/ruled
    recloop train worlds/ml-100k --agent sasrec --out policies/sasrec
    recloop train worlds/ml-100k --agent my_module:MyAgent --out policies/mine

With `--checkpoint`, an interrupted training of one of our own learners goes on when the same command is run again.
TensorBoard logs go beside the policy, to OUT-tensorboard. At the end the policy meets the validation simulator on the
tune users; the judges stay unread.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from textwrap import fill
from typing import Any

import tyro

from recloop.agents.policy import FitOptions, Policy
from recloop.agents.registry import check_settings, facts_of, make_policy, names_of, save_policy
from recloop.agents.settings import settings_of
from recloop.encoders.base.errors import PolicyError
from recloop.envs.simulation.core import checked_device
from recloop.envs.simulation.penalties import PenaltyConfig
from recloop.envs.world.world import World
from recloop.experiments.asked import asked_world, in_own_users
from recloop.experiments.comparison.evaluate import Evaluator
from recloop.experiments.comparison.intervals import Interval, by_user, t_interval
from recloop.experiments.comparison.tracking import Run, Tags, kept_start, training_watch
from recloop.experiments.output import checked_out, replacing_output, writing
from recloop.experiments.provenance import use_threads
from recloop.experiments.report.tables import interval_text, wide_console
from recloop.experiments.settings import at_least, given_settings

VALIDATION_SEED = 10_000
"""Of the validation users' luck, apart from the evaluation's."""


@dataclass(frozen=True)
class TrainConfig:
    """Train one policy in a world and save it."""

    world: tyro.conf.Positional[Path]
    """World folder."""
    out: Path
    """Policy folder to write."""
    overwrite: bool = False
    """Replace a policy that was made with other settings."""
    agent: str = "ppo"
    """A registered name, sb3:NAME of Stable-Baselines3, or a dotted path module:Class; --help tells its settings."""
    set: tuple[str, ...] = ()
    """Settings of the agent, name=value, over its defaults and over --config."""
    config: Path | None = None
    """YAML file of settings of the agent."""
    reward: tuple[str, ...] = ()
    """What a step is worth, NAME=WEIGHT ..., or a dotted path module:function; default the world's reward."""
    rules: Path | None = None
    """YAML or JSON file of rules that every slate keeps, whoever picks it; default the world's."""
    users: str | None = None
    """Users of your own to train in and to validate in: a dotted path module:MyUsers or an installed entry point."""
    num_envs: int | None = None
    """Users simulated at once while an RL agent learns; default the agent's own."""
    steps: int | None = None
    """Environment steps (passes over the log for sasrec and dnn); default the agent's own."""
    seed: int = 0
    """Of all randomness in training."""
    penalties: tyro.conf.OmitArgPrefixes[PenaltyConfig] = field(default_factory=PenaltyConfig)
    """What an RL agent's training steps are charged and given on top of the reward."""
    episodes: int = 200
    """Episodes of the validation at the end; at least 2."""
    device: str = "cpu"
    """Torch device."""
    threads: int | None = None
    """Torch threads; default OMP_NUM_THREADS, else all cores."""
    checkpoint: Path | None = None
    """Folder where a training is kept, so that the same command goes on after an interruption; own learners only."""
    checkpoint_every: int = 50
    """Updates between two checkpoints."""
    compile: bool = False
    """Compile what pays; falls back with a warning."""
    progress: bool = True
    """Show progress bars."""

    def __post_init__(self) -> None:
        at_least(
            1, num_envs=self.num_envs, steps=self.steps, threads=self.threads, checkpoint_every=self.checkpoint_every
        )
        at_least(0, seed=self.seed)
        at_least(2, episodes=self.episodes)

    @property
    def settings(self) -> dict[str, Any]:
        """Of the agent, by name, where they differ from its defaults."""
        told = {} if self.num_envs is None else {"num_envs": self.num_envs}
        return {**given_settings(self.config, self.set), **told}

    @property
    def decisive(self) -> dict[str, Any]:
        """The settings that decide what policy it is, but for the world."""
        names = ("agent", "steps", "seed", "device")
        told = {name: getattr(self, name) for name in names}
        return {**told, "penalties": asdict(self.penalties), "settings": sorted(map(list, self.settings.items()))}

    @staticmethod
    def further_help(arguments: Sequence[str]) -> str:
        """The settings of the agent that the arguments name."""
        agent = next((word for flag, word in pairwise(arguments) if flag == "--agent"), TrainConfig.agent)
        config_class = facts_of(agent).config_class
        if config_class is None:
            return f"{agent} has no settings."
        lines = [f"{s.name} ({s.kind}, default {s.default}): {s.told}" for s in settings_of(config_class())]
        told = [fill(line, 110, initial_indent="  ", subsequent_indent="      ") for line in lines]
        return "\n".join([f"settings of {agent}, for --set and --config:", *told])


@dataclass(frozen=True)
class Trained:
    """What training gave.

    Args:
        policy: as saved.
        validation: return on the tune users in the validation simulator, with its interval over users.
        difference: to popularity, paired by user.
        seconds: of training.
        kept_start: nothing that it learned was better in validation than its start.
    """

    policy: Policy
    validation: Interval
    difference: Interval
    seconds: float
    kept_start: bool


def main(config: TrainConfig) -> Trained:
    """Train, save, validate, and print what came out."""
    use_threads(config.threads)
    checked_device(config.device)
    facts = facts_of(config.agent)  # an unknown name is refused before anything is read
    if config.checkpoint is not None and not facts.resumable:
        raise PolicyError(
            f"'{config.agent}' keeps no checkpoints; leave --checkpoint out, or train one of "
            f"{', '.join(names_of(resumable=True))}"
        )
    if config.penalties.active and facts.trains != "loop":
        raise PolicyError(
            f"'{config.agent}' learns nothing in the loop, where penalties are charged; leave --pessimism and "
            f"--entropy-bonus out, or train one of {', '.join(names_of(trains='loop'))}"
        )
    if config.users is not None and facts.trains != "loop":
        raise PolicyError(
            f"'{config.agent}' learns nothing in the loop, where users answer; leave --users out, or train one of "
            f"{', '.join(names_of(trains='loop'))}"
        )
    if facts.privileged:
        raise PolicyError(f"'{config.agent}' reads the users' true state; it is a bound, there is nothing to train")
    if config.settings:
        check_settings(config.agent, config.settings)
    checked_out(config.out, "policy.json", "policy")  # train looks again; a world may take long to load
    world = World.load(config.world)
    trained = train(world, config)
    console = wide_console()
    console.print(f"{trained.policy.name} trained in {trained.seconds:.0f} s, saved in {config.out}", soft_wrap=True)
    console.print(
        f"validation users: return {interval_text(trained.validation)} an episode, "
        f"minus popularity {interval_text(trained.difference, signed=True)}",
        soft_wrap=True,
    )
    if trained.kept_start:
        console.print(
            f"{trained.policy.name} KEPT ITS START: nothing it learned was better in validation; look at the curves, "
            "raise --steps or change its settings",
            style="bold red",
            soft_wrap=True,
        )
    console.print(f"curves: tensorboard --logdir {_logs(config.out)}", soft_wrap=True)
    return trained


def train(world: World, config: TrainConfig) -> Trained:
    """Train and save the policy of a config in a world that is there already."""
    checked_out(config.out, "policy.json", "policy")
    world = asked_world(world, config.reward, config.rules)
    if config.users is not None:
        world = in_own_users(world, config.users, config.device)
    with ExitStack() as held:
        if config.checkpoint is not None:
            held.enter_context(writing(config.checkpoint))
        made_with = {**config.decisive, "world": world.fingerprint}
        settings = held.enter_context(
            replacing_output(config.out, "policy.json", "policy", made_with, config.overwrite)
        )
        return _train(world, config, settings)


def _train(world: World, config: TrainConfig, made_with: Mapping[str, Any]) -> Trained:
    started = time.monotonic()
    with Run(_logs(config.out)) as run:
        options = FitOptions(
            seed=config.seed,
            steps=config.steps,
            device=config.device,
            progress=config.progress,
            penalties=config.penalties,
            log=run.log,
            watch=training_watch(
                world, episodes=config.episodes, users="tune", seed=VALIDATION_SEED, device=config.device
            ),
            resumed=run.go_on,
            checkpoint=config.checkpoint,
            checkpoint_every=config.checkpoint_every,
            compile=config.compile,
            settings=config.settings,
        )
        policy = make_policy(config.agent, world, options)
        seconds = time.monotonic() - started
        save_policy(policy, config.out, made_with)
        simulator = "validation" if "validation" in world.simulators else world.training_simulator
        arena = Evaluator(
            world, simulator, episodes=config.episodes, users="tune", seed=VALIDATION_SEED, device=config.device
        )
        mine = arena.run(policy)
        popular = arena.run(make_policy("popularity", world, FitOptions(device=config.device)))
        value = by_user(mine.value, mine.users)
        validation, difference = t_interval(value), t_interval(value - by_user(popular.value, popular.users))
        idle = kept_start(run.curves)
        run.log(Tags.validation_return, validation.mean, run.last_step)
    return Trained(policy, validation, difference, seconds, idle)


def _logs(out: Path) -> Path:
    return out.with_name(f"{out.name}-tensorboard")


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(TrainConfig, main)
