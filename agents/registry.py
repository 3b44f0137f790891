"""Policies by name, by dotted path and by folder: how they are made, kept on disk and read again."""

import importlib
import os
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar, cast

from recloop.agents.facts import Group, PolicyFacts, Trains
from recloop.agents.learners.contract import Learner
from recloop.agents.learners.loop import learn
from recloop.agents.policy import FORMAT, FitOptions, Policy, Trainer
from recloop.agents.serving import Serving
from recloop.agents.settings import with_settings
from recloop.encoders.base.artifact import Bounded, Unfitting
from recloop.encoders.base.errors import PolicyError, RecloopError, unknown_name
from recloop.encoders.base.manifest import ANEW, check_files
from recloop.encoders.base.replacing import sweep
from recloop.encoders.base.storage import read_json, read_tensors
from recloop.envs.world.world import World

__all__ = [
    "ENTRY_POINTS",
    "POLICIES",
    "FitOptions",
    "check_settings",
    "facts_of",
    "known_policies",
    "load_policy",
    "make_policy",
    "names_of",
    "save_policy",
]

Maker = Callable[[World, FitOptions], Policy]

POLICIES = {
    "random": "recloop.agents.baselines.random_items:RandomPolicy",
    "popularity": "recloop.agents.baselines.popularity:PopularityPolicy",
    "greedy": "recloop.agents.baselines.greedy:GreedyPolicy",
    "content": "recloop.agents.baselines.content:ContentPolicy",
    "last-item": "recloop.agents.baselines.content:LastItemPolicy",
    "encoder": "recloop.agents.baselines.content:EncoderOrderPolicy",
    "instructed": "recloop.agents.baselines.instructed:InstructedPolicy",
    "instruction-tuned": "recloop.agents.instructed.policy:InstructionTuned",
    "worst-first": "recloop.agents.baselines.popularity:WorstFirstPolicy",
    "exploring-greedy": "recloop.agents.baselines.greedy_variants:ExploringGreedyPolicy",
    "diversified-greedy": "recloop.agents.baselines.greedy_variants:DiversifiedGreedyPolicy",
    "dnn": "recloop.agents.baselines.dnn:DNNPolicy",
    "recent-popularity": "recloop.agents.collaborative.recent:RecentPopularityPolicy",
    "item-knn": "recloop.agents.collaborative.neighbours:ItemKNNPolicy",
    "ease": "recloop.agents.collaborative.ease:EASEPolicy",
    "als": "recloop.agents.collaborative.factors:ALSPolicy",
    "bpr": "recloop.agents.collaborative.factors:BPRPolicy",
    "lightgcn": "recloop.agents.collaborative.lightgcn:LightGCNPolicy",
    "kgin": "recloop.agents.collaborative.lightgcn:KGINPolicy",
    "sasrec": "recloop.agents.sequence.policy:SASRecPolicy",
    "gru4rec": "recloop.agents.sequence.policy:GRU4RecPolicy",
    "bert4rec": "recloop.agents.sequence.policy:BERT4RecPolicy",
    "gsasrec": "recloop.agents.sequence.policy:GSASRecPolicy",
    "esasrec": "recloop.agents.sequence.policy:ESASRecPolicy",
    "hstu": "recloop.agents.sequence.policy:HSTUPolicy",
    "planner": "recloop.agents.baselines.planner:PlannerPolicy",
    "lm-ranker": "recloop.agents.language.ranker:LanguageRanker",
    "lm-classifier": "recloop.agents.language.classifier:LanguageClassifier",
    "lm-verbaliser": "recloop.agents.language.verbaliser:LanguageVerbaliser",
    "ppo": "recloop.agents.sb3.zoo:ppo",
    "ppo-proto": "recloop.agents.sb3.zoo:ppo-proto",
    "dqn": "recloop.agents.sb3.zoo:dqn",
    "maskable-ppo": "recloop.agents.sb3.zoo:maskable-ppo",
    "recloop-ppo": "recloop.agents.learners.on_policy.ppo:PPO",
    "grpo": "recloop.agents.learners.grpo:GRPO",
    "slate-ppo": "recloop.agents.learners.on_policy.slate_ppo:ProposalPPO",
    "slate-lookahead": "recloop.agents.learners.on_policy.slate_lookahead:SlateLookahead",
    "a2c": "recloop.agents.learners.on_policy.a2c:A2C",
    "reinforce": "recloop.agents.learners.on_policy.reinforce:Reinforce",
    "reinforce-logged": "recloop.agents.learners.logged.reinforce:LoggedReinforce",
    "bc": "recloop.agents.learners.logged.cloning:BehaviourCloning",
    "cql": "recloop.agents.learners.logged.cql:CQL",
    "iql": "recloop.agents.learners.logged.iql:IQL",
    "decision-transformer": "recloop.agents.learners.logged.decision_transformer:DecisionTransformer",
    "double-dqn": "recloop.agents.learners.off_policy.double_dqn:DoubleDQN",
    "slateq": "recloop.agents.learners.off_policy.slate_q:SlateQ",
    "slate-dqn": "recloop.agents.learners.off_policy.slate_dqn:SlateDQN",
    "ddpg": "recloop.agents.learners.off_policy.wolpertinger:DDPG",
    "td3": "recloop.agents.learners.off_policy.wolpertinger:TD3",
    "sac": "recloop.agents.learners.off_policy.sac:SAC",
    "hac": "recloop.agents.learners.off_policy.hac:HAC",
    "epsilon-greedy": "recloop.agents.learners.bandits.learners:EpsilonGreedy",
    "linucb": "recloop.agents.learners.bandits.learners:LinUCB",
    "linear-thompson": "recloop.agents.learners.bandits.learners:LinearThompson",
    "neural-thompson": "recloop.agents.learners.bandits.learners:NeuralThompson",
}
"""Name -> dotted path of a `Policy` class, whose `fit` is used, of a `Trainer`, or of a `Learner`, which is trained by
`recloop.agents.learners.loop.learn`. What is true of each stands with the class: see `PolicyFacts`."""

KINDS = {
    "actor": "recloop.agents.networks.policy:ActorPolicy",
    "sb3": "recloop.agents.networks.policy:ActorPolicy",
    "bandit": "recloop.agents.learners.bandits.policy:BanditPolicy",
    "wolpertinger": "recloop.agents.learners.off_policy.wolpertinger:WolpertingerPolicy",
}
"""What a policy folder may hold besides what `POLICIES` name; `sb3` is what `actor` was called before."""

SB3 = "sb3:"
"""Before the name of any algorithm of Stable-Baselines3 and sb3-contrib; see `recloop.agents.sb3.zoo`."""

ENTRY_POINTS = "recloop.policies"
"""Entry-point group under which an installed package offers policies."""


class _Saved(PolicyFacts):
    """A policy in a folder: whatever it was, it is trained."""


class _Function(PolicyFacts):
    """A callable of your own, which says nothing of itself."""

    trains: ClassVar[Trains] = "loop"
    group: ClassVar[Group] = "rl"


def known_policies() -> dict[str, str]:
    """Name -> dotted path of what is registered here or offered by an installed package; nothing is imported."""
    return {**{point.name: point.value for point in entry_points(group=ENTRY_POINTS)}, **POLICIES}


def names_of(**facts: object) -> list[str]:
    """The known policies of which all these facts hold (`resumable=True`), sorted; imports them all."""
    known = {name: facts_of(name) for name in sorted(known_policies())}
    return [name for name, told in known.items() if all(getattr(told, fact) == is_ for fact, is_ in facts.items())]


def facts_of(name: str | Path) -> type[PolicyFacts]:
    """What is true of a policy before it is made.

    Args:
        name: as `make_policy` takes it; of a folder nothing is read.

    Raises:
        PolicyError: an unknown name (suggests the nearest), or a path that cannot be imported.
    """
    if _is_folder(name):
        return _Saved
    found = _import(_path_of(str(name)))
    return found if isinstance(found, type) and issubclass(found, PolicyFacts) else _Function


def check_settings(name: str | Path, settings: Mapping[str, Any]) -> None:
    """Raise `RecloopError` for settings that a policy does not have, before anything is trained."""
    config_class = facts_of(name).config_class
    if config_class is None:
        raise PolicyError(f"policy '{name}' has no settings, not even {', '.join(settings)}; leave them out")
    with_settings(config_class(), settings, str(name))


def make_policy(name: str | Path, world: World, options: FitOptions | None = None, *, trust: bool = False) -> Policy:
    """A policy that can act in `world`.

    Args:
        name: a name of `known_policies()`, `sb3:SAC` for any algorithm of Stable-Baselines3, a dotted path
            `my_package.module:MyPolicy` of a `Policy`, `Trainer` or `Learner` class or of a callable
            `(world, options) -> Policy`, or a folder that `save_policy` wrote.
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
    options = options or FitOptions()
    if options.settings:
        check_settings(text, options.settings)
    policy = _maker(text)(world, options)
    if not isinstance(policy, Policy):
        raise PolicyError(f"{text} gave a {type(policy).__name__}; it must give a recloop.agents.Policy")
    if policy.serving is None:
        policy.serving = Serving.of(world)
    if policy.name == Policy.name:
        policy.name = text.rpartition(":")[2]
    return policy


def save_policy(policy: Policy, folder: Path | str, made_with: Mapping[str, Any] | None = None) -> None:
    """Write `policy.json`, `weights.safetensors` and `serving/`; the folder is replaced whole or not at all.

    Args:
        made_with: settings that its manifest keeps, so that a training with others does not replace it.
    """
    known = {**known_policies(), **KINDS}
    if policy.kind and policy.kind not in known:
        raise PolicyError(unknown_name(f"kind of {type(policy).__name__}", policy.kind, known))
    policy.save(folder, made_with)


def load_policy(folder: Path | str, trust: bool = False) -> Policy:
    """Read what `save_policy` wrote, onto the CPU. Needs no world.

    Raises:
        PolicyError: the folder is missing, damaged, or from a newer format, or names a class of its own to
            import and `trust` is False.
    """
    folder = Path(folder)
    if not folder.exists():
        sweep(folder.parent)  # a writer may have been killed while it replaced the folder
    if not (folder / "policy.json").exists():
        what = "is no policy folder: policy.json is missing" if folder.exists() else "does not exist"
        raise PolicyError(f"the policy folder {folder} {what}; make one with `recloop train WORLD --out {folder}`")
    try:
        return _load(folder, trust)
    except PolicyError:
        raise
    except (RecloopError, Unfitting, OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split()).removesuffix(f"; {ANEW}") or type(error).__name__
        raise PolicyError(f"the policy in {folder} is damaged: {reason}; train it anew") from error


def _load(folder: Path, trust: bool) -> Policy:
    facts = read_json(folder / "policy.json")
    if facts["format"] > FORMAT:
        raise PolicyError(f"{folder} has format {facts['format']}, this recloop reads up to {FORMAT}; upgrade recloop")
    check_files(folder, required=facts["format"] >= 2)
    found = _import(_trusted_path(facts["kind"], folder, trust))
    found = getattr(found, "policy_class", found)  # what a learner gives
    if not (isinstance(found, type) and issubclass(found, Policy)):
        raise PolicyError(f"{folder} names {facts['kind']}, which is not a Policy class")
    serving = Serving.load(folder / "serving")
    if trust:
        serving = serving.with_code()
    if serving.fingerprint != facts["fingerprint"]:
        raise PolicyError(f"the files in {folder} do not belong together (fingerprint differs); train it anew")
    tensors = read_tensors(folder / "weights.safetensors")
    with Bounded(folder):
        policy = found.restore(serving, facts["config"], tensors)
    policy.serving = serving
    policy.name = facts["name"]
    return policy


def _trusted_path(kind: str, folder: Path, trust: bool) -> str:
    known = {**known_policies(), **KINDS}
    if kind in known:
        return known[kind]
    if ":" not in kind:
        raise PolicyError(f"{folder}: {unknown_name('kind of policy', kind, known)}")
    if not trust:
        raise PolicyError(
            f"{folder} asks to import {kind}, which runs code of its own; if you know where the folder is from, pass "
            "trust=True (--trust)"
        )
    return kind


def _check_same_world(policy: Policy, world: World, name: str) -> None:
    serving = policy.serving
    if serving is not None and serving.fingerprint != world.observation_fingerprint:
        raise PolicyError(
            f"the policy in {name} was made in world '{serving.world.name}' ({serving.fingerprint[:12]}), this is "
            f"'{world.name}' ({world.observation_fingerprint[:12]}); train it anew in this world"
        )


def _is_folder(name: str | Path) -> bool:
    text = str(name)
    if isinstance(name, Path) or (Path(text) / "policy.json").exists():
        return True
    return text not in known_policies() and ":" not in text and (os.sep in text or Path(text).is_dir())


def _maker(name: str) -> Maker:
    found = _import(_path_of(name))
    if isinstance(found, type) and issubclass(found, Policy | Trainer):
        return found.fit
    if isinstance(found, type) and issubclass(found, Learner):
        return partial(learn, found)
    if not callable(found):
        raise PolicyError(
            f"{name} is a {type(found).__name__}; give a class of policies, trainers or learners, or a callable "
            "(world, options)"
        )
    return cast(Maker, found)


def _path_of(name: str) -> str:
    known = known_policies()
    if name in known:
        return known[name]
    if name.startswith(SB3):
        return f"recloop.agents.sb3.zoo:{name.removeprefix(SB3)}"
    if ":" in name:
        return name
    raise PolicyError(
        f"{unknown_name('policy', name, known)}; or give a policy folder or a dotted path my_module:MyPolicy"
    )


def _import(path: str) -> Any:
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise PolicyError(f"cannot import {path}: {error}; check the path and PYTHONPATH") from error
