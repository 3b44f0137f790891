"""What is true of a policy before it is made: each class says it of itself, and nobody keeps a list."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

Trains = Literal["loop", "log", "no"]
"""How a policy is trained: among simulated users, from the log, or not at all."""

Group = Literal["baseline", "supervised", "lm", "bandit", "logged", "rl"]
"""Policies of one kind: rules that learn little or nothing, recommenders fitted on the log, language models, bandits,
offline RL, and RL in the loop."""


class PolicyFacts:
    """What `Policy` and every class that trains one share; a class of your own says what differs from the defaults.

    Attributes:
        trains: `loop`: in the loop, so a budget is environment steps and penalties are charged; `log`: from the log, so
            a budget is passes over it; `no`: making it takes no time and does not depend on the seed.
        deterministic: neither its making nor its slates depend on a seed: what it earns is worked out once.
        resumable: its training keeps checkpoints and goes on from them.
        continues: it can be fitted on from where it stands (`Policy.continued`), and be anchored there.
        privileged: it is handed the users' true state instead of an observation; only for truth worlds, never a
            competitor.
        savable: it can be saved; False for one that is put together anew of others, which can.
        plans: it chooses by a model of the training users (`World.user_model`): what it earns is an upper end.
        ranks: its slate of k is the first k of its longer slates, so that rules of whole slates may choose among those.
        group: the kind of policy; a group's name stands for all its known policies, see `recloop.agents.groups`.
        paper: whom it follows, "Kang and McAuley 2018"; empty without one.
        extras: of recloop that it needs to be installed, ("kg",).
        needs: attributes of a world that it cannot do without and that may be None, ("user_model",).
        config_class: the frozen dataclass of its settings, whose docstring tells each under `Args:`; None without any.
    """

    trains: ClassVar[Trains] = "no"
    deterministic: ClassVar[bool] = False
    resumable: ClassVar[bool] = False
    continues: ClassVar[bool] = False
    privileged: ClassVar[bool] = False
    savable: ClassVar[bool] = True
    plans: bool = False
    ranks: bool = False
    group: ClassVar[Group] = "baseline"
    paper: ClassVar[str] = ""
    extras: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ()
    config_class: ClassVar[type[Any] | None] = None
