"""One core, three skins: Gymnasium, Gymnasium vector, Stable-Baselines3."""
