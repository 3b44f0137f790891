"""What a command asks of a world beside its own: another reward, rules, users of one's own to train in."""

from collections.abc import Sequence
from pathlib import Path

from recloop.agents.policy import Policy
from recloop.encoders.base.errors import RecloopError, UserSimulatorError, unknown_name
from recloop.envs.build.examination import with_reward
from recloop.envs.truth.worlds import TRUTHS, truth_world
from recloop.envs.users.checks import check_users
from recloop.envs.users.contract import UserSimulator
from recloop.envs.users.registry import find_simulator
from recloop.envs.world.world import World


def asked_world(
    world: World, reward: Sequence[str] = (), rules: Path | None = None, slate_size: int | None = None
) -> World:
    """The world with the reward and the rules asked for, its own where nobody asks.

    Raises:
        RecloopError: for a reward that this world does not have, or rules that no slate keeps.
    """
    world = with_reward(world, reward) if reward else world
    return world.with_rules(world.rules if rules is None else rules, slate_size)


def made_simulator(path: str) -> UserSimulator:
    """A person's own simulator by dotted path or entry point, made without arguments."""
    kind = find_simulator(path)
    try:
        return kind()
    except TypeError as error:
        raise UserSimulatorError(f"{path} cannot be made without arguments ({error}); give them defaults") from error


def in_own_users(world: World, path: str, device: str) -> World:
    """The world in which users of one's own answer in training and in validation; judges stay.

    Args:
        path: dotted, `my_module:MyUsers`, or the name of an installed entry point.

    Raises:
        UserSimulatorError: where they cannot be made, or break the contract.
    """
    users = made_simulator(path)
    check_users(users, world, device=device)
    names = {world.training_simulator, *({"validation"} & world.simulators.keys())}
    return world.with_simulators(**dict.fromkeys(sorted(names), users))


def made_for_other_terms(policy: Policy, world: World) -> str:
    """What a policy was made for, where it is not what it is judged by in a world; "" where it is the same."""
    made, said = policy.serving.world if policy.serving is not None else world, []
    if made.reward != world.reward:
        said.append(f"was made for the reward {made.reward.in_words()} and is judged by {world.reward.in_words()}")
    if made.rules != world.rules:
        said.append("was made under other rules than it is judged under")
    return "; it ".join(said)


def named_world(name: str, users: int = 500, items: int = 200, seed: int = 0) -> World:
    """A world folder, or a truth world by name, which is made on the spot.

    Args:
        name: a folder wins over a name.
        users, items, seed: of a truth world.

    Raises:
        RecloopError: neither.
    """
    if Path(name).exists():
        return World.load(name)
    if name in TRUTHS:
        return truth_world(name, users=users, items=items, seed=seed)
    raise RecloopError(f"{unknown_name('truth world', name, TRUTHS)}, and no world folder either")
