"""Episodes of a policy in a world, or the sessions of its log, as offline reinforcement learning reads them.

recloop trajectories worlds/ml-100k --policy policies/ppo --episodes 1000 --out data/ppo-v0
recloop trajectories worlds/ml-100k --out data/ml-100k-v0                                   the log's sessions
recloop trajectories worlds/ml-100k --policy random --format parquet --out data/random      for pandas and the like
recloop trajectories worlds/ml-100k --policy random --slate-size 1 --observation state --out data/flat-v0
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

from recloop.agents.acting import picked_with_propensity
from recloop.agents.policy import FitOptions
from recloop.agents.registry import make_policy
from recloop.encoders.base.errors import RecloopError
from recloop.envs.interaction.observation import DEFAULT_KEYS
from recloop.envs.simulation.core import checked_device
from recloop.envs.trajectories.episodes import Trajectories
from recloop.envs.trajectories.files import MARKER, Format, write_trajectories
from recloop.envs.trajectories.sources import logged, recorded
from recloop.envs.world.world import World
from recloop.experiments.output import checked_out, replacing_output
from recloop.experiments.provenance import use_threads
from recloop.experiments.settings import at_least

_POLICY_STREAM = 0x74726163
"""Sets a policy's own draws apart from the users' luck."""


@dataclass(frozen=True)
class TrajectoriesConfig:
    """Write episodes as a Minari data set or as Parquet."""

    world: tyro.conf.Positional[Path]
    """World folder."""
    out: Path
    """Folder to write; for Minari named NAME-v0."""
    overwrite: bool = False
    """Replace trajectories that were made with other settings."""
    policy: str | None = None
    """A registered name, a policy folder or a dotted path module:Class; default the world's log."""
    episodes: int | None = None
    """How many; default 1000 of a policy, and all sessions of the log."""
    format: Format = "minari"
    """What is written."""
    observation: tuple[str, ...] = ("dict",)
    """What is kept of each moment: dict, state (the flat vector), or keys by name."""
    users: str = "train"
    """The part of the world's users."""
    simulator: str | None = None
    """Who answers a policy; default whom agents train in."""
    slate_size: int | None = None
    """Items a slate of a policy; 1 makes actions plain numbers. Default the world's."""
    seed: int = 0
    """Of the users' luck and of the policy's."""
    device: str = "cpu"
    """Torch device."""
    trust: bool = False
    """Let a policy folder import a class of its own."""
    threads: int | None = None
    """Torch threads; default OMP_NUM_THREADS, else all cores."""

    def __post_init__(self) -> None:
        at_least(1, episodes=self.episodes, slate_size=self.slate_size, threads=self.threads)
        at_least(0, seed=self.seed)
        if self.policy is None and (self.simulator is not None or self.slate_size is not None):
            raise RecloopError("--simulator and --slate-size belong to a policy, and the log has its own; add --policy")

    @property
    def decisive(self) -> dict[str, Any]:
        """The settings that decide what is written, but for the world."""
        beside = ("world", "out", "overwrite", "trust", "threads")
        return {name: value for name, value in asdict(self).items() if name not in beside}


def main(config: TrajectoriesConfig) -> Trajectories:
    """Record, write, and say what came out."""
    use_threads(config.threads)
    checked_device(config.device)
    checked_out(config.out, MARKER, "folder of trajectories")
    world = World.load(config.world)
    made_with = {**config.decisive, "world": world.fingerprint}
    with replacing_output(config.out, MARKER, "folder of trajectories", made_with, config.overwrite) as settings:
        found = trajectories_of(world, config)
        write_trajectories(found, world, config.out, config.format, settings, config.world)
    mean = found.rewards.sum(dtype=float) / len(found)
    print(f"{len(found):,} episodes, {len(found.rewards):,} steps, mean return {mean:.3f}, written to {config.out}")
    return found


def trajectories_of(world: World, config: TrajectoriesConfig) -> Trajectories:
    """What a command asks for, not yet written."""
    observation = config.observation[0] if len(config.observation) == 1 else config.observation
    observation = observation if observation in ("dict", "state") else config.observation
    if config.policy is None:
        return logged(world, config.users, observation, config.episodes)
    options = FitOptions(seed=config.seed, device=config.device)
    policy = make_policy(config.policy, world, options, trust=config.trust)
    asked = {"users": config.users, "simulator": config.simulator, "slate_size": config.slate_size}
    return recorded(
        world,
        lambda core, carry: picked_with_propensity(policy, core, carry, config.seed ^ _POLICY_STREAM),
        policy.name,
        config.episodes or 1000,
        config.seed,
        observation,
        (*DEFAULT_KEYS, "action_mask", *(("instruction",) if world.instruction is not None else ())),
        **{name: value for name, value in asked.items() if value is not None},
        device=config.device,
    )


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(TrajectoriesConfig, main)
