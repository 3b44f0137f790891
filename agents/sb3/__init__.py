"""Stable-Baselines3 agents: PPO, DQN and MaskablePPO with networks that score item vectors."""
