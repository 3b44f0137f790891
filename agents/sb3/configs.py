"""What an algorithm of Stable-Baselines3 is trained with: settings read off its signature, told by its docstring."""

import inspect
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass, make_dataclass
from typing import Any, ClassVar, Union, get_args, get_origin, get_type_hints

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy

from recloop.agents.configs import AgentConfig
from recloop.agents.settings import typed
from recloop.encoders.base.errors import RecloopError, unknown_name

OF_POLICIES = (
    "log_std_init",
    "n_critics",
    "n_quantiles",
    "lstm_hidden_size",
    "batch_norm",
    "batch_norm_momentum",
    "batch_norm_eps",
    "renorm_warmup_steps",
)
"""Keyword arguments of policy classes that have a meaning beside our networks."""
_OURS = (
    *("policy", "env", "seed", "device", "verbose", "tensorboard_log", "optimize_memory_usage", "_init_setup_model"),
    *("use_sde", "sde_sample_freq", "use_sde_at_warmup"),
)
"""Keyword arguments of algorithms that are not for a setting: given by the training, or not known to our networks."""
_PLAIN = (type(None), bool, int, float, str)
"""Types of a setting, the narrowest first."""
_PARAM = re.compile(r":param (\w+):(.*?)(?=\n\s*:param |\n\s*\n|\Z)", re.DOTALL)


@dataclass(frozen=True)
class SB3Config(AgentConfig):
    """What all algorithms share; the rest is read off their signatures by `config_of`.

    Args:
        learning_rate: at the start; falls linearly to zero.
        gamma: discount a slate, in [0, 1], also where a slate takes several actions.
        scale_rewards: divide rewards by the running spread of the discounted return (`VecNormalize`).
    """

    scale_rewards: bool = False

    of_algorithm: ClassVar[tuple[str, ...]] = ()
    of_policy: ClassVar[tuple[str, ...]] = ()

    def keywords(self) -> dict[str, Any]:
        """What the algorithm's constructor takes."""
        return {name: getattr(self, name) for name in self.of_algorithm}

    def policy_keywords(self) -> dict[str, Any]:
        """What the policy's constructor takes."""
        return {name: getattr(self, name) for name in self.of_policy}


def config_of(
    name: str, algorithm: type[BaseAlgorithm], policy: type[BasePolicy], proto: bool, tuned: Mapping[str, Any]
) -> type[SB3Config]:
    """The frozen dataclass of an algorithm's settings: each keyword argument that a text can give, under SB3's name.

    Args:
        name: of the agent, for messages.
        algorithm: its constructor says what there is, of what type, with what default.
        policy: its class of policies.
        proto: whether actions are points in item space, so that a spread of theirs has a meaning.
        tuned: defaults that go before the signature's.

    Raises:
        RecloopError: a tuned value for what is no setting, or of another type.
    """
    mine, theirs = _plain(algorithm), _plain(policy)
    theirs = {key: theirs[key] for key in OF_POLICIES if key in theirs and (proto or key != "log_std_init")}
    shared = get_type_hints(SB3Config)
    own = {key: found for key, found in {**mine, **theirs}.items() if key not in shared}
    if "action_noise" in inspect.signature(algorithm.__init__).parameters:
        own["noise_std"] = (float, 0.0)
    hints = {**shared, **{key: hint for key, (hint, _) in own.items()}}
    defaults = {key: default for key, (_, default) in own.items()}
    for key, value in tuned.items():
        if key not in hints:
            raise RecloopError(unknown_name(f"setting of {name}", key, hints))
        defaults[key] = typed(value, hints[key], f"{key}={value} of {name}")
    told = {**_told(policy), **_told(algorithm), "noise_std": "standard deviation of the noise on actions."}
    lines = [f"    {key}: {told.get(key) or 'as in Stable-Baselines3.'}" for key in own]
    space = {
        "__doc__": "\n".join([f"{algorithm.__name__} as Stable-Baselines3 has it.", "", "Args:", *lines]),
        "of_algorithm": tuple(mine),
        "of_policy": tuple(theirs),
    }
    made = [(key, hints[key], default) for key, default in defaults.items()]
    return make_dataclass(f"{name}Config", made, bases=(SB3Config,), frozen=True, namespace=space)


def _plain(kind: type[Any]) -> dict[str, tuple[Any, Any]]:
    """Keyword arguments of a constructor that a text can give: name -> (type, default)."""
    found = {}
    for name, parameter in inspect.signature(kind.__init__).parameters.items():
        hint = parameter.annotation
        options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
        kept = [one for one in _PLAIN if one in options]
        if name not in _OURS and any(one is not type(None) for one in kept):
            found[name] = (Union[tuple(kept)], parameter.default)  # noqa: UP007 - made of what is found
    return found


def _told(kind: type[Any]) -> dict[str, str]:
    """What a docstring in SB3's manner says of each argument."""
    return {name: " ".join(text.split()) for name, text in _PARAM.findall(kind.__doc__ or "")}
