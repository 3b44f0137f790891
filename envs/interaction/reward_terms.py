"""A reward as a person writes it: `purchase=1 click=0.1 leaving=-0.5`, or a dotted path of a callable."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.envs.interaction.item_columns import ItemColumns, ShownItems
from recloop.envs.interaction.response import Response
from recloop.envs.interaction.reward import TERMS, Outcome, Reward, WeightedReward, checked_reward
from recloop.envs.logs.schema import Signal
from recloop.envs.simulation.deferred_checks import DeferredChecks

OF_GROUPS = "recloop.envs.users.together.rewards"
"""Where rewards lie that a folder may name without anybody's trust: they are not a person's own code."""


@dataclass(frozen=True)
class CodedReward:
    """A callable of your own by its dotted path, which is all of it that a folder keeps.

    Args:
        path: `my_module:my_reward`.
        function: what lies there; None as a folder holds it: nobody has named the path, and nothing was imported.
    """

    path: str
    function: Callable[[Outcome], Tensor] | None = field(default=None, compare=False)

    @classmethod
    def of(cls, path: str) -> "CodedReward":
        """Import what a person named; `RecloopError` where it cannot be."""
        module, _, name = path.partition(":")
        try:
            found = getattr(import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise RecloopError(f"cannot import the reward {path}: {error}; check the path and PYTHONPATH") from error
        if not callable(found):
            raise RecloopError(f"the reward {path} is a {type(found).__name__}; name a callable of Outcome")
        return cls(path, found)

    def imported(self) -> "CodedReward":
        """With the function that the path names."""
        return self if self.function is not None else CodedReward.of(self.path)

    @property
    def needs_spread(self) -> bool:
        """Whether the users must say how unsure they are."""
        return bool(getattr(self.function, "needs_spread", False))

    def __call__(self, outcome: Outcome) -> Tensor:
        if self.function is None:
            raise RecloopError(
                f"the reward is {self.path}, code of its own that a folder names; say so yourself with "
                f"--reward {self.path}, or --trust the folder"
            )
        return self.function(outcome)

    def as_dict(self) -> dict[str, Any]:
        """For a world's card; `reward_of` undoes it."""
        return {"path": self.path}

    def in_words(self) -> str:
        """The path."""
        return self.path


KeptReward = WeightedReward | CodedReward
"""What a world and a policy folder keep."""


def reward_of(facts: Mapping[str, Any]) -> KeptReward:
    """Undo `as_dict`; nothing is imported but recloop's own rewards of groups."""
    if "path" not in facts:
        return WeightedReward(**facts)
    path = str(facts["path"])
    return CodedReward.of(path) if path.partition(":")[0] == OF_GROUPS else CodedReward(path)


def parsed_reward(
    given: str | Sequence[str] | Mapping[str, float] | Reward, signals: Sequence[Signal], columns: ItemColumns
) -> Reward:
    """A reward from terms, from a dotted path, or as it is.

    A term is `name=weight`; names are signals, `leaving`, `diversity`, `repeats`, a column of numbers of the items
    table (added for every item that is shown), or a signal times such a column, `purchase*margin`.

    Args:
        given: terms in one text or several, a mapping of names to weights, one dotted path, or a reward.
        signals, columns: of the world.

    Raises:
        RecloopError: a name that the world does not have (suggests the nearest), a weight that is no number, a term
            twice, a column with missing cells, or a path that cannot be imported.
    """
    if isinstance(given, Mapping):
        given = [f"{name}={weight}" for name, weight in given.items()]
    if callable(given):
        return given
    texts = given.split() if isinstance(given, str) else list(given)
    if len(texts) == 1 and "=" not in texts[0] and ":" in texts[0]:
        return CodedReward.of(texts[0])
    found: dict[str, float] = {}
    for text in texts:
        name, equals, number = text.rpartition("=")
        weight = _weight(number)
        if not equals or weight is None:
            raise RecloopError(f"reward term '{text}' is not understood; write NAME=WEIGHT, such as click=0.1")
        name = _term(name.strip(), [signal.name for signal in signals], columns)
        if name in found:
            raise RecloopError(f"reward term '{name}' stands twice, {found[name]:g} and {weight:g}; give one weight")
        found[name] = weight
    if not any(found.values()):
        raise RecloopError("the reward is 0 whatever happens; give a term a weight, such as click=1")
    names = [signal.name for signal in signals]
    terms = {name: weight for name, weight in found.items() if name in TERMS and name not in names}
    return WeightedReward(
        signals={name: weight for name, weight in found.items() if name in names},
        columns={name: weight for name, weight in found.items() if name not in names and name not in terms},
        **terms,
    )


def kept_reward(
    given: str | Sequence[str] | Mapping[str, float] | Reward,
    signals: Sequence[Signal],
    columns: ItemColumns,
    items: int,
) -> KeptReward:
    """`parsed_reward`, one that a folder can keep; a callable is tried on two slates of the `items` of a world.

    Raises:
        RecloopError: besides, for a callable without a path, or one that fails or gives no finite number a lane.
    """
    reward = parsed_reward(given, signals, columns)
    if isinstance(reward, CodedReward):
        _try(reward, signals, columns, items)
    if isinstance(reward, WeightedReward | CodedReward):
        return reward
    raise RecloopError(
        f"a {type(reward).__name__} cannot be kept; name the reward by a dotted path my_module:my_reward"
    )


def _try(reward: CodedReward, signals: Sequence[Signal], columns: ItemColumns, items: int) -> None:
    slate = torch.stack([torch.arange(items).flip(0)[:2], torch.full((2,), items)])
    given = (slate < items).unsqueeze(2).expand(2, 2, len(signals))
    lanes = torch.arange(2)
    response = Response(torch.zeros(given.shape), given, lanes > 0)
    outcome = Outcome(slate, response, lanes * 2, torch.zeros(items + 1, 1), tuple(signals), columns=columns)
    try:
        found = reward(outcome)
    except RecloopError:
        raise
    except Exception as error:
        raise RecloopError(
            f"the reward {reward.path} fails on a slate of two items without an answer ({type(error).__name__}: "
            f"{error}); mend it: `past` may be None, places may be empty"
        ) from error
    checked_reward(found, lanes, DeferredChecks(torch.device("cpu")), reward)


def expected_by_place(
    reward: Reward,
    slate: Tensor,
    mean: Tensor,
    signals: Sequence[Signal],
    columns: ItemColumns,
    item_vectors: Tensor,
) -> Tensor:
    """What each item (B, K) is expected to earn by its answers as if it were shown alone, float (B, K).

    Leaving, diversity and repeats of a weighted reward, which belong to whole slates, are left out; a callable is asked
    about slates of one that get the expected answer, from users who stay.

    Args:
        slate: int64 (B, K), N where empty.
        mean: float (B, K, S) expected signals where they are given: `Expected.mean`.
        signals, columns, item_vectors: of the world, on the device of the slate.
    """
    names = [signal.name for signal in signals]
    answers = mean.clone()
    for place, signal in enumerate(signals):  # a signal counts as often as what it is given on is expected
        while signal.given_on is not None:
            parent = names.index(signal.given_on)
            answers[..., place] *= mean[..., parent]
            signal = signals[parent]
    if isinstance(reward, WeightedReward):
        return reward.by_place(answers, signals, ShownItems(slate, columns))
    answers = answers.reshape(-1, 1, len(signals))
    stays = torch.zeros(len(answers), dtype=torch.bool, device=slate.device)
    response = Response(answers, torch.ones_like(answers, dtype=torch.bool), stays)
    whole = Outcome(slate.reshape(-1, 1), response, stays.long(), item_vectors, tuple(signals), columns=columns)
    return reward(whole).view(slate.shape)


def _term(name: str, signals: Sequence[str], columns: ItemColumns) -> str:
    """A term's name as `WeightedReward` keeps it."""
    if name in signals or name in TERMS:
        return name
    first, star, second = (part.strip() for part in name.partition("*"))
    if star and second in signals and first not in signals:
        first, second = second, first
    column = second if star else first
    if column not in columns.numbers or (star and first not in signals):
        products = [f"{signal}*{number}" for signal in signals for number in columns.numbers] if star else []
        raise RecloopError(unknown_name("reward term", name, [*signals, *TERMS, *columns.numbers, *products]))
    missing = int(columns.numbers[column].isnan().sum())
    if missing:
        raise RecloopError(
            f"reward term '{name}': column '{column}' is missing for {missing} of {len(columns.numbers[column]) - 1} "
            "items; fill the items table, or leave the term out"
        )
    return f"{first}*{column}" if star else column


def _weight(text: str) -> float | None:
    try:
        weight = float(text)
    except ValueError:
        return None
    return weight if math.isfinite(weight) else None
