"""Learners that improve the policy they act with: PPO, A2C, REINFORCE."""
