"""Our own torch agents: rollouts, advantages and updates never leave the device."""

LEARNERS = {
    "recloop-ppo": "recloop.agents.learners.on_policy.ppo:PPO",
    "a2c": "recloop.agents.learners.on_policy.a2c:A2C",
    "reinforce": "recloop.agents.learners.on_policy.reinforce:Reinforce",
    "double-dqn": "recloop.agents.learners.off_policy.double_dqn:DoubleDQN",
    "slateq": "recloop.agents.learners.off_policy.slate_q:SlateQ",
    "ddpg": "recloop.agents.learners.off_policy.wolpertinger:DDPG",
    "td3": "recloop.agents.learners.off_policy.wolpertinger:TD3",
    "sac": "recloop.agents.learners.off_policy.sac:SAC",
    "hac": "recloop.agents.learners.off_policy.hac:HAC",
}
"""Name -> dotted path of its `Learner`; `recloop.agents.registry.POLICIES` holds them too."""

__all__ = ["LEARNERS"]
