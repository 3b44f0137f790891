"""How far simulated users can be believed: fidelity, replay of logging policies, support of the log."""
