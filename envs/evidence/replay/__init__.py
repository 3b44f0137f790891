"""Logging policies replayed in simulated users and held against the log: a gate that needs no truth."""

from recloop.envs.evidence.replay.gate import GateLine, GateReport, GateRules, replay_gate

__all__ = ["GateLine", "GateReport", "GateRules", "replay_gate"]
