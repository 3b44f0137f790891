"""Folders damaged at random: is the damage refused, harmless, or does another result come out without a word?"""

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from recloop.agents.learners.checkpoints import load_checkpoint
from recloop.agents.learners.loop import learn
from recloop.agents.learners.on_policy.ppo import PPO, PPOConfig
from recloop.agents.networks.features import NetworkConfig
from recloop.agents.policy import FitOptions
from recloop.agents.registry import load_policy, save_policy
from recloop.encoders.base.digests import digest_of_value
from recloop.encoders.base.errors import RecloopError
from recloop.encoders.base.storage import read_json
from recloop.envs.build.stages import StageCache
from recloop.envs.users.registry import load_simulator, save_simulator
from recloop.envs.world.world import World
from recloop.experiments.comparison.evaluate import Evaluator
from recloop.experiments.comparison.result_store import Finished, ResultStore
from recloop.experiments.studies.faults.outcomes import HARMLESS, REFUSED, Ending, wrong


@dataclass(frozen=True)
class Damaged:
    """A kind of folder that is damaged.

    Args:
        name: what tables call it.
        folder: an undamaged one.
        read: what it holds, as a digest; None where it is known to be damaged and would be made anew.
    """

    name: str
    folder: Path
    read: Callable[[Path], str | None]


def make_artifacts(world: World, place: Path) -> None:
    """One of each kind, of a small world: world, policy, checkpoint, ledger, stage."""
    world.save(place / "world")
    config = PPOConfig(
        steps=64,
        num_envs=4,
        rollout=8,
        validations=1,
        validation_episodes=4,
        network=NetworkConfig(hidden=4, slate_dim=4, layers=1),
    )
    policy = learn(PPO, world, FitOptions(checkpoint=place / "checkpoint"), config)
    save_policy(policy, place / "policy")
    rollout = Evaluator(world, world.training_simulator, episodes=8).run(policy)
    curves = {"train/loss": [(8, 0.5), (16, 0.25)]}
    ResultStore(place / "ledger").put("ppo", 0, "digest", Finished({"truth": rollout}, curves, 1.0, 2.0))
    users = world.simulator(world.training_simulator)
    StageCache(place / "stage", by_code=False).keep("users", {}, lambda: users, save_simulator, load_simulator)


def artifacts_in(place: Path) -> tuple[Damaged, ...]:
    """What `make_artifacts` made, and how each is read."""
    facts = read_json(place / "checkpoint" / "checkpoint.json")["facts"]

    def world(folder: Path) -> str:
        found = World.load(folder)
        return digest_of_value([found.fingerprint, found.card, found.patterns])

    def policy(folder: Path) -> str:
        found = load_policy(folder)
        serving = found.serving
        assert serving is not None
        named = [found.name, serving.world.fingerprint, serving.fingerprint]
        return digest_of_value([*named, found.config(), found.tensors()])

    def ledger(folder: Path) -> str | None:
        found = ResultStore(folder).get("ppo", 0, "digest")
        if found is None:
            return None
        rollouts = {name: rollout.tensors() for name, rollout in found.rollouts.items()}
        return digest_of_value([rollouts, found.curves, found.fit_seconds, found.evaluate_seconds, found.privileged])

    def stage(folder: Path) -> str | None:
        made: list[bool] = []

        def anew() -> object:
            made.append(True)
            raise RecloopError("made anew")

        try:
            found = StageCache(folder, by_code=False).keep("users", {}, anew, _unkept, load_simulator)
        except RecloopError:
            if made:
                return None
            raise
        return digest_of_value(found)

    def checkpoint(folder: Path) -> str | None:
        found = load_checkpoint(folder, facts)
        return None if found is None else digest_of_value([found.facts, found.counters, found.parts])

    reads = {"world": world, "policy": policy, "ledger": ledger, "stage": stage, "checkpoint": checkpoint}
    return tuple(Damaged(name, place / name, read) for name, read in reads.items())


def damages(artifact: Damaged, place: Path, luck: random.Random) -> Iterator[Ending]:
    """Damage copies of a folder for ever, at random; what became of each."""
    sound = artifact.read(artifact.folder)
    assert sound is not None
    while True:
        copy = place / artifact.name
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(artifact.folder, copy)
        done = damage(copy, luck)
        try:
            found = artifact.read(copy)
        except RecloopError as error:
            yield wrong(f"{done}: {error}") if "\n" in str(error) else Ending(REFUSED)
        except Exception as error:
            yield wrong(f"{done}: {error!r}")
        else:
            right = Ending(REFUSED if found is None else HARMLESS)
            yield right if found in (None, sound) else wrong(f"{done}: another result without a word")


def damage(folder: Path, luck: random.Random) -> str:
    """Flip a bit of a random file, cut it, lose it, or put another one in its place; what was done."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = luck.choice(files)
    held = bytearray(path.read_bytes())
    way = luck.choice(("flip", "flip", "cut", "lose", "swap"))
    match way:
        case "flip":
            held[luck.randrange(len(held))] ^= 1 << luck.randrange(8)
            path.write_bytes(held)
        case "cut":
            path.write_bytes(held[: luck.randrange(len(held))])
        case "lose":
            path.unlink()
        case "swap":
            other = luck.choice(files)
            path.write_bytes(other.read_bytes())
            other.write_bytes(held)
    return f"{way} {path.relative_to(folder)}"


def _unkept(made: object, folder: Path) -> None:
    raise RecloopError("not to be kept")
