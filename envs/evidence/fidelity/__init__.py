"""How far simulated users are from the people whose log they were fitted on."""

from recloop.envs.evidence.fidelity.measure import FidelityConfig, fidelity_of
from recloop.envs.evidence.fidelity.report import (
    Curve,
    FidelityLine,
    FidelityReport,
    failures,
    marked,
    reports_on,
)

__all__ = [
    "Curve",
    "FidelityConfig",
    "FidelityLine",
    "FidelityReport",
    "failures",
    "fidelity_of",
    "marked",
    "reports_on",
]
