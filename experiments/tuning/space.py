"""What is searched: settings of a policy by name, each with a range or a list of values.

learning_rate=1e-4..1e-2  rollout=4..32  target=q-learning,sarsa
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recloop.agents.registry import check_settings, facts_of
from recloop.agents.settings import settings_of
from recloop.encoders.base.errors import RecloopError, unknown_name

AROUND = ("learning_rate", "critic_learning_rate", "ridge", "entropy", "ent_coef", "weight_decay", "kl")
"""Settings that are searched from a fifth of their default to five times of it, where nobody says what to search."""

BETWEEN = {"gamma": (0.8, 0.99), "gae_lambda": (0.3, 0.99), "dropout": (0.0, 0.5)}
"""Settings that are searched between these, where nobody says what to search."""

_LOG = 10.0
"""From this ratio of its ends on a range is searched by orders of magnitude."""


@dataclass(frozen=True)
class Searched:
    """One setting that is searched.

    Args:
        name: of the setting, dotted where it lies in a config within.
        values: as text; () where it is a range.
        low, high: ends of the range, both included.
        whole: whether it takes whole numbers.
    """

    name: str
    values: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    whole: bool = False

    def drawn(self, trial: Any) -> str:
        """A value for a trial of Optuna, as the text that is trained with and printed."""
        if self.values:
            return str(trial.suggest_categorical(self.name, self.values))
        log = self.low > 0 and self.high / self.low >= _LOG
        if self.whole:
            return str(trial.suggest_int(self.name, int(self.low), int(self.high), log=log))
        return f"{trial.suggest_float(self.name, self.low, self.high, log=log):.4g}"

    def given(self, value: Any) -> Any:
        """A default as a trial takes it; None where it is not among what is searched."""
        if self.values:
            return str(value) if str(value) in self.values else None
        inside = isinstance(value, int | float) and self.low <= value <= self.high
        return value if inside else None

    def __str__(self) -> str:
        return f"{self.name}={','.join(self.values) or f'{self.low:g}..{self.high:g}'}"


def searched(agent: str, texts: Sequence[str], fixed: Mapping[str, Any]) -> tuple[Searched, ...]:
    """What to search of an agent, by `name=low..high` or `name=a,b,c`; what is usual where there are none.

    Raises:
        RecloopError: a policy without settings, a setting it does not have, values it does not take, or a range of
            what is no number.
    """
    config_class = facts_of(agent).config_class
    if config_class is None:
        raise RecloopError(f"policy '{agent}' has no settings to search; take one that trains, see recloop policies")
    known = {one.name: one for one in settings_of(config_class())}
    if not texts:
        texts = [text for name, one in known.items() if name not in fixed and (text := _usual(name, one.default))]
        if not texts:
            raise RecloopError(f"nothing of {agent} is searched by default; name settings, --space NAME=LOW..HIGH")
    found = []
    for text in texts:
        name, sign, values = text.partition("=")
        if not (sign and values):
            raise RecloopError(f"--space {text} names no values; write name=1e-4..1e-2 or name=a,b,c")
        if name not in known:
            raise RecloopError(unknown_name(f"setting of {agent}", name, known))
        if name in fixed:
            raise RecloopError(f"--space {name} is fixed by --set or --config; leave one of them out")
        found.append(_read(name, values, known[name].kind))
        for value in found[-1].values or (_number(found[-1].low), _number(found[-1].high)):
            check_settings(agent, {name: value})
    return tuple(found)


def _usual(name: str, default: Any) -> str:
    """How a setting is searched where nobody says; "" where it is not."""
    if name in BETWEEN:
        return "{}={}..{}".format(name, *BETWEEN[name])
    return f"{name}={default / 5:g}..{default * 5:g}" if name in AROUND and default else ""


def _read(name: str, text: str, kind: str) -> Searched:
    low, dots, high = text.partition("..")
    if not dots:
        return Searched(name, tuple(dict.fromkeys(text.split(","))))
    whole = "int" in kind.split()
    try:
        ends = (float(low), float(high))
    except ValueError:
        raise RecloopError(f"--space {name}={text} is no range of numbers; list what to try, {name}=a,b,c") from None
    if not ("float" in kind.split() or whole) or not ends[0] < ends[1]:
        raise RecloopError(f"--space {name}={text}: {name} takes {kind}, and a range rises; list what to try instead")
    return Searched(name, (), *ends, whole)


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else str(value)
