"""What policies are worth in every kind of users of a fitted world: the same people, with the same luck.

from recloop.experiments.comparison.policy_values import value_policies
value_policies(world, {"greedy": make_policy("greedy", world), ...}, episodes=300, start="cold").judges.mean((0, 2))
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal, Protocol, Self, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from recloop.agents.policy import Policy
from recloop.encoders.base.errors import RecloopError
from recloop.encoders.base.progress import progress_bar
from recloop.envs.evidence.support.bracket import Bracket, BracketRules, bracket_of
from recloop.envs.evidence.verdict import GateOutcome, Verdict
from recloop.envs.users.contract import UserSimulator
from recloop.envs.world.world import World
from recloop.experiments.comparison.claims import Evidence, Witness
from recloop.experiments.comparison.evaluate import Evaluator, Rollout
from recloop.experiments.comparison.intervals import by_user
from recloop.experiments.comparison.ranking import Floats
from recloop.experiments.comparison.results import bracket_over

_NO_MARGIN = BracketRules(model_error=0.0)
"""Of a single simulator nothing is added; the margin comes on top of all simulators together."""


@runtime_checkable
class HasMembers(Protocol):
    """An ensemble, each of whose members can answer on its own."""

    members: Sequence[UserSimulator]


@dataclass(frozen=True)
class PolicyValues:
    """What P policies are worth to U users in every kind of users; rows of users agree.

    Args:
        policies: names, P.
        train: float64 (M, P, U) return by member of the training ensemble.
        judges: float64 (J, P, U) return by judge.
        truth: float64 (P, U), or None.
        simulators: float64 (P, V, 4) of each policy in each of the V judges and members, judges first: mean return,
            mean of the episodes at worst and at best, share of steps outside the support; None without a support model.
        gates: of the training users and the judges.
        judge_names: J names; default `judge`, `judge-2` and so on.
        planning: (P,) whether a policy plans on a model of the training users; default none.
    """

    policies: tuple[str, ...]
    train: Floats
    judges: Floats
    truth: Floats | None = None
    simulators: Floats | None = None
    gates: tuple[GateOutcome, ...] = ()
    judge_names: tuple[str, ...] = ()
    planning: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        wanted = (len(self.policies), self.train.shape[-1])
        names = ("judge", *(f"judge-{number + 2}" for number in range(len(self.judges) - 1)))
        object.__setattr__(self, "judge_names", self.judge_names or names)
        object.__setattr__(self, "planning", self.planning or (False,) * wanted[0])
        parts = {"train": self.train[0], "judges": self.judges[0], "truth": self.truth}
        for name, values in parts.items():
            if values is not None and values.shape != wanted:
                raise RecloopError(f"{name} holds values of shape {values.shape}; {wanted} (policies, users) is meant")
        if self.simulators is not None and len(self.simulators) != wanted[0]:
            raise RecloopError(
                f"simulators tell of {len(self.simulators)} policies, not of {wanted[0]}; give one a policy"
            )

    @cached_property
    def brackets(self) -> tuple[Bracket, ...]:
        """What is not known of each policy's value, (P,); empty without a support model."""
        if self.simulators is None:
            return ()
        return tuple(
            bracket_of(*simulators.T.tolist(), planning=planning)
            for simulators, planning in zip(self.simulators, self.planning, strict=True)
        )

    @property
    def flags(self) -> tuple[bool, ...]:
        """(P,) whether a policy goes beyond what the log supports; all False where nobody measured it."""
        return tuple(bracket.flag != "" for bracket in self.brackets) or (False,) * len(self.policies)

    @property
    def simulated(self) -> Floats:
        """(P,) the value that is reported: that among the judges, whom no policy was trained or tuned against."""
        return np.asarray(self.judges.mean((0, 2)), dtype=np.float64)

    @property
    def evidence(self) -> Evidence:
        """What claims about the policies are made from."""
        return Evidence(
            policies=self.policies,
            training=Witness("train", self.train.mean(0)[None], tuple(self.train)),
            judges=tuple(Witness(n, values[None]) for n, values in zip(self.judge_names, self.judges, strict=True)),
            truth=self.truth,
            brackets=self.brackets,
            planning=self.planning,
            gates=self.gates,
        )

    def facts(self) -> dict[str, Any]:
        """What is no array, for JSON."""
        return {
            "policies": list(self.policies),
            "gates": [asdict(gate) for gate in self.gates],
            "judge_names": list(self.judge_names),
            "planning": list(self.planning),
        }

    def tensors(self) -> dict[str, Tensor]:
        """The arrays, for safetensors."""
        arrays = {"train": self.train, "judges": self.judges, "truth": self.truth, "simulators": self.simulators}
        return {n: torch.from_numpy(np.ascontiguousarray(values)) for n, values in arrays.items() if values is not None}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Self:
        """Undo `tensors` and `facts`."""
        found: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
        found.update({name: tuple(facts[name]) for name in ("policies", "judge_names", "planning")})
        gates = tuple(GateOutcome(**{**gate, "verdict": Verdict(gate["verdict"])}) for gate in facts["gates"])
        return cls(**found, gates=gates)


def value_policies(
    world: World,
    policies: Mapping[str, Policy],
    *,
    truth: UserSimulator | None = None,
    episodes: int = 300,
    start: Literal["history", "cold"] = "history",
    seed: int = 0,
    device: str = "cpu",
    progress: bool = False,
) -> PolicyValues:
    """Value policies in each member of the training users, in the judges and in the truth, with common noise.

    Args:
        world: fitted; its judges are the simulators whose names start with `judge`.
        policies: by name.
        truth: default the world's own simulator `truth`, where it has one.
        episodes: of each policy in each kind of users.
        start: `history`: warm from the log; `cold`: nothing is known of anybody yet.
        seed: of the users' luck, the same everywhere.

    Raises:
        RecloopError: a world without training users or judges.
    """
    members, judges = simulators_of(world)
    truth = truth or world.simulators.get("truth")
    world = cold_world(world) if start == "cold" else world
    rollouts: dict[str, list[list[Rollout]]] = {}  # by kind of users, simulator, policy
    groups = {"train": members, "judges": judges, "truth": [] if truth is None else [truth]}
    bar = progress_bar(total=len(policies) * sum(map(len, groups.values())), unit="rollout", disable=not progress)
    with bar:
        for kind, simulators in groups.items():
            rollouts[kind] = []
            place = replace(world, support=None) if kind == "truth" else world  # the truth is nowhere unknown
            for simulator in simulators:
                arena = Evaluator(place, simulator, episodes=episodes, seed=seed, device=device)
                row = []
                for name, policy in policies.items():
                    bar.set_postfix_str(f"{kind} {name}")
                    row.append(arena.run(policy))
                    bar.update()
                rollouts[kind].append(row)
    tables = {kind: np.array([[_by_user(r) for r in row] for row in rows]) for kind, rows in rollouts.items()}
    everyone = [*rollouts["judges"], *rollouts["train"]]
    return PolicyValues(
        policies=tuple(policies),
        judge_names=world.judges,
        planning=tuple(policy.plans for policy in policies.values()),
        train=tables["train"],
        judges=tables["judges"],
        truth=tables["truth"][0] if truth is not None else None,
        simulators=None
        if world.support is None
        else np.array([[_outcome(row[i]) for row in everyone] for i in range(len(policies))]),
    )


def cold_world(world: World) -> World:
    """The world with nobody's history, so that whatever starts in it starts cold: arrivals stay a gather."""
    users, n = world.users, len(world.catalogue)
    return replace(
        world,
        users=replace(
            users,
            history=torch.full_like(users.history, n),
            feedback=torch.zeros_like(users.feedback),
            shown=torch.full_like(users.shown, n),
            answers=torch.zeros_like(users.answers),
        ),
    )


def simulators_of(world: World) -> tuple[list[UserSimulator], list[UserSimulator]]:
    """The members of the training users, one by one, and the judges."""
    if "train" not in world.simulators:
        raise RecloopError(
            f"world '{world.name}' has no training users ({', '.join(world.simulators)}); agreement is asked of a "
            "world fitted on a log, make one with `recloop build`"
        )
    train = world.simulators["train"]
    members = list(train.members) if isinstance(train, HasMembers) else [train]
    judges = [world.simulators[name] for name in world.judges]
    if not judges:
        raise RecloopError(f"world '{world.name}' has no judge; build it anew")
    return members, judges


def _by_user(rollout: Rollout) -> Floats:
    return by_user(rollout.value, rollout.users)


def _outcome(rollout: Rollout) -> list[float]:
    """Mean return, at worst, at best, and the share of steps outside the support."""
    bracket = bracket_over([[rollout]], _NO_MARGIN)
    if bracket is None:
        raise RecloopError("this rollout was not measured against the log's support; run it in an Arena of the world")
    return [bracket.value, bracket.pessimistic, bracket.optimistic, bracket.outside]
