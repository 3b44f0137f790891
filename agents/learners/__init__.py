"""Our own torch agents: rollouts, advantages and updates never leave the device."""

LEARNERS = {
    "recloop-ppo": "recloop.agents.learners.ppo:PPO",
    "a2c": "recloop.agents.learners.a2c:A2C",
    "reinforce": "recloop.agents.learners.reinforce:Reinforce",
    "double-dqn": "recloop.agents.learners.double_dqn:DoubleDQN",
    "slateq": "recloop.agents.learners.slate_q:SlateQ",
    "ddpg": "recloop.agents.learners.wolpertinger:DDPG",
    "td3": "recloop.agents.learners.wolpertinger:TD3",
    "sac": "recloop.agents.learners.sac:SAC",
    "hac": "recloop.agents.learners.hac:HAC",
}
"""Name -> dotted path of its `Learner`; `recloop.agents.registry.POLICIES` holds them too."""

__all__ = ["LEARNERS"]
