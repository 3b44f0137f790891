"""Does a user simulator keep the contract? Each broken promise is named, and how to mend it.

recloop check-users my_module:MyUsers
recloop check-users my_module:MyUsers --world worlds/ml-100k
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from recloop.envs.users.checks import check_users
from recloop.envs.world.world import World
from recloop.experiments.asked import made_simulator
from recloop.experiments.settings import at_least


@dataclass(frozen=True)
class CheckUsersConfig:
    """Hold a user simulator against its contract."""

    users: tyro.conf.Positional[str]
    """Dotted path module:MyUsers, or the name of an installed entry point."""
    world: Path | None = None
    """World folder to try it in; default the built-in truth world."""
    num_envs: int = 16
    """Users looked at, at once."""
    steps: int = 3
    """Slates shown in a row."""
    device: str = "cpu"
    """Torch device."""

    def __post_init__(self) -> None:
        at_least(2, num_envs=self.num_envs)
        at_least(1, steps=self.steps)


def main(config: CheckUsersConfig) -> None:
    """Check, and say what comes next."""
    if config.world is None:
        from recloop.envs.truth.built_in import built_in_world

        world = built_in_world()
    else:
        world = World.load(config.world)
    simulator = made_simulator(config.users)
    check_users(simulator, world, lanes=config.num_envs, steps=config.steps, device=config.device)
    where = config.world or "WORLD"
    print(
        f"{config.users} keeps the contract; next: recloop train {where} --users {config.users} "
        f"--out POLICY, or recloop compare {where} --users {config.users}"
    )


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(CheckUsersConfig, main)
