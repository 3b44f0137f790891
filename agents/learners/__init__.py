"""Our own torch agents: rollouts, advantages and updates never leave the device."""

LEARNERS = {
    "recloop-ppo": "recloop.agents.learners.ppo:PPO",
    "a2c": "recloop.agents.learners.a2c:A2C",
}
"""Name -> dotted path of its `Learner`; `recloop.agents.registry.POLICIES` holds them too."""

__all__ = ["LEARNERS"]
