"""Policies by name, by dotted path and by folder: how they are made, kept on disk and read again."""

import importlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

from recloop.agents.learners import LEARNERS
from recloop.agents.learners.contract import Learner
from recloop.agents.learners.loop import learn
from recloop.agents.policy import FORMAT, FitOptions, Policy
from recloop.agents.serving import Serving
from recloop.encoders.base.errors import PolicyError, RecloopError, unknown_name
from recloop.encoders.base.storage import read_json, read_tensors
from recloop.envs.world.world import World

__all__ = [
    "IN_LOOP",
    "KINDS",
    "POLICIES",
    "RESUMABLE",
    "FitOptions",
    "can_resume",
    "load_policy",
    "make_policy",
    "needs_training",
    "save_policy",
]

Maker = Callable[[World, FitOptions], Policy]

POLICIES = {
    "random": "recloop.agents.baselines.random_items:RandomPolicy",
    "popularity": "recloop.agents.baselines.popularity:PopularityPolicy",
    "greedy": "recloop.agents.baselines.greedy:GreedyPolicy",
    "content": "recloop.agents.baselines.content:ContentPolicy",
    "last-item": "recloop.agents.baselines.content:LastItemPolicy",
    "instructed": "recloop.agents.baselines.instructed:InstructedPolicy",
    "worst-first": "recloop.agents.baselines.popularity:WorstFirstPolicy",
    "exploring-greedy": "recloop.agents.baselines.greedy_variants:ExploringGreedyPolicy",
    "diversified-greedy": "recloop.agents.baselines.greedy_variants:DiversifiedGreedyPolicy",
    "dnn": "recloop.agents.baselines.dnn:DNNPolicy",
    "sasrec": "recloop.agents.baselines.sasrec:SASRecPolicy",
    "planner": "recloop.agents.baselines.planner:PlannerPolicy",
    "ppo": "recloop.agents.sb3:ppo",
    "ppo-proto": "recloop.agents.sb3:ppo_proto",
    "dqn": "recloop.agents.sb3:dqn",
    "maskable-ppo": "recloop.agents.sb3:maskable_ppo",
    "reinforce-logged": "recloop.agents.learners.logged.reinforce:reinforce_logged",
    **LEARNERS,
}
"""Name -> dotted path of a `Policy` class, whose `fit` is used, of a `Learner` class, which is trained by
`recloop.agents.learners.loop.learn`, or of a callable `(world, options) -> Policy`."""

IN_LOOP = frozenset({"ppo", "ppo-proto", "dqn", "maskable-ppo", *LEARNERS})
"""The names of `POLICIES` that are trained in the loop: steps are the environment's, penalties are charged."""

TRAINED = frozenset({"dnn", "sasrec", "reinforce-logged", *IN_LOOP})
"""The names of `POLICIES` whose making is training: it takes time, and another seed gives another policy."""

RESUMABLE = frozenset({"reinforce-logged", *LEARNERS})
"""The names of `POLICIES` whose trainings keep checkpoints."""

KINDS = {
    "random": "recloop.agents.baselines.random_items:RandomPolicy",
    "popularity": "recloop.agents.baselines.popularity:PopularityPolicy",
    "greedy": "recloop.agents.baselines.greedy:GreedyPolicy",
    "content": "recloop.agents.baselines.content:ContentPolicy",
    "last-item": "recloop.agents.baselines.content:LastItemPolicy",
    "instructed": "recloop.agents.baselines.instructed:InstructedPolicy",
    "worst-first": "recloop.agents.baselines.popularity:WorstFirstPolicy",
    "exploring-greedy": "recloop.agents.baselines.greedy_variants:ExploringGreedyPolicy",
    "diversified-greedy": "recloop.agents.baselines.greedy_variants:DiversifiedGreedyPolicy",
    "dnn": "recloop.agents.baselines.dnn:DNNPolicy",
    "sasrec": "recloop.agents.baselines.sasrec:SASRecPolicy",
    "actor": "recloop.agents.networks.policy:ActorPolicy",
    "sb3": "recloop.agents.networks.policy:ActorPolicy",
    "slateq": "recloop.agents.learners.off_policy.slate_q:SlateQPolicy",
    "wolpertinger": "recloop.agents.learners.off_policy.wolpertinger:WolpertingerPolicy",
    "sac": "recloop.agents.learners.off_policy.sac:SACPolicy",
    "hac": "recloop.agents.learners.off_policy.hac:HACPolicy",
}
"""Kind -> dotted path of the classes that a policy folder may hold; `sb3` is what `actor` was called before."""


def make_policy(name: str | Path, world: World, options: FitOptions | None = None, *, trust: bool = False) -> Policy:
    """A policy that can act in `world`.

    Args:
        name: a name of `POLICIES`, a dotted path `my_package.module:MyPolicy` of a `Policy` or `Learner` class or of
            a callable `(world, options) -> Policy`, or a folder that `save_policy` wrote.
        world: the world to act in.
        options: how to train it; default `FitOptions()`.
        trust: whether a folder may name a class of its own to import.

    Raises:
        PolicyError: an unknown name (suggests the nearest), a path that cannot be imported, a folder that is broken
            or was made in another world.
    """
    text = str(name)
    if _is_folder(name):
        policy = load_policy(name, trust=trust)
        _check_same_world(policy, world, text)
        return policy
    policy = _maker(text)(world, options or FitOptions())
    if not isinstance(policy, Policy):
        raise PolicyError(f"{text} gave a {type(policy).__name__}; it must give a recloop.agents.Policy")
    if policy.serving is None:
        policy.serving = Serving.of(world)
    if policy.name == Policy.name:
        policy.name = text.rpartition(":")[2]
    return policy


def needs_training(name: str | Path) -> bool:
    """Whether making this policy is training, so that it depends on the seed; a saved one is already trained."""
    if _is_folder(name):
        return False
    if str(name) in POLICIES:
        return str(name) in TRAINED
    found = _import(_path_of(str(name)))
    if isinstance(found, type) and issubclass(found, Policy):
        return cast(Any, found.fit).__func__ is not cast(Any, Policy.fit).__func__
    return True


def can_resume(name: str | Path) -> bool:
    """Whether its training keeps checkpoints: one of `RESUMABLE`, or a `Learner` of your own."""
    if _is_folder(name):
        return False
    if str(name) in POLICIES:
        return str(name) in RESUMABLE
    found = _import(_path_of(str(name)))
    return isinstance(found, type) and issubclass(found, Learner)


def save_policy(policy: Policy, folder: Path | str) -> None:
    """Write `policy.json`, `weights.safetensors` and `serving/`; the folder is replaced whole or not at all."""
    if policy.kind and policy.kind not in KINDS:
        raise PolicyError(unknown_name(f"kind of {type(policy).__name__}", policy.kind, KINDS))
    policy.save(folder)


def load_policy(folder: Path | str, trust: bool = False) -> Policy:
    """Read what `save_policy` wrote, onto the CPU. Needs no world.

    Raises:
        PolicyError: the folder is missing, damaged, or from a newer format, or names a class of its own to
            import and `trust` is False.
    """
    folder = Path(folder)
    if not (folder / "policy.json").exists():
        what = "is no policy folder: policy.json is missing" if folder.exists() else "does not exist"
        raise PolicyError(f"the policy folder {folder} {what}; make one with `recloop train WORLD --out {folder}`")
    try:
        return _load(folder, trust)
    except PolicyError:
        raise
    except (RecloopError, OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PolicyError(f"the policy in {folder} is damaged: {reason}; train it anew") from error


def _load(folder: Path, trust: bool) -> Policy:
    facts = read_json(folder / "policy.json")
    if facts["format"] > FORMAT:
        raise PolicyError(f"{folder} has format {facts['format']}, this recloop reads up to {FORMAT}; upgrade recloop")
    found = _import(_trusted_path(facts["kind"], folder, trust))
    if not (isinstance(found, type) and issubclass(found, Policy)):
        raise PolicyError(f"{folder} names {facts['kind']}, which is not a Policy class")
    serving = Serving.load(folder / "serving")
    if serving.fingerprint != facts["fingerprint"]:
        raise PolicyError(f"the files in {folder} do not belong together (fingerprint differs); train it anew")
    policy = found.restore(serving, facts["config"], read_tensors(folder / "weights.safetensors"))
    policy.serving = serving
    policy.name = facts["name"]
    return policy


def _trusted_path(kind: str, folder: Path, trust: bool) -> str:
    if kind in KINDS:
        return KINDS[kind]
    if ":" not in kind:
        raise PolicyError(f"{folder}: {unknown_name('kind of policy', kind, KINDS)}")
    if not trust:
        raise PolicyError(
            f"{folder} asks to import {kind}, which runs code of its own; if you know where the folder is from, pass "
            "trust=True (--trust)"
        )
    return kind


def _check_same_world(policy: Policy, world: World, name: str) -> None:
    serving = policy.serving
    if serving is not None and serving.fingerprint != world.fingerprint:
        raise PolicyError(
            f"the policy in {name} was made in world '{serving.world.name}' ({serving.fingerprint[:12]}), this is "
            f"'{world.name}' ({world.fingerprint[:12]}); train it anew in this world"
        )


def _is_folder(name: str | Path) -> bool:
    text = str(name)
    if isinstance(name, Path) or (Path(text) / "policy.json").exists():
        return True
    return text not in POLICIES and ":" not in text and (os.sep in text or Path(text).is_dir())


def _maker(name: str) -> Maker:
    found = _import(_path_of(name))
    if isinstance(found, type) and issubclass(found, Policy):
        return found.fit
    if isinstance(found, type) and issubclass(found, Learner):
        return partial(learn, found)
    if not callable(found):
        raise PolicyError(
            f"{name} is a {type(found).__name__}; give a Policy class, a Learner class or a callable (world, options)"
        )
    return cast(Maker, found)


def _path_of(name: str) -> str:
    if name in POLICIES:
        return POLICIES[name]
    if ":" in name:
        return name
    raise PolicyError(
        f"{unknown_name('policy', name, POLICIES)}; or give a policy folder or a dotted path my_module:MyPolicy"
    )


def _import(path: str) -> Any:
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise PolicyError(f"cannot import {path}: {error}; check the path and PYTHONPATH") from error
