"""How near fitted users are to the truth whose log they were fitted on, in the numbers that the truth study pools."""

from collections.abc import Sequence

from recloop.envs.evidence.fidelity import FidelityConfig, FidelityReport, fidelity_of
from recloop.envs.simulation.rollout import Pick
from recloop.envs.users.contract import UserSimulator
from recloop.envs.world.world import World

CALIBRATION = "calibration_"
WORST = ("two_sample_auc", "session_length_ks")
"""Lines of which the largest over simulators and loops counts."""


def fidelity_measures(
    fitted: World, truth: UserSimulator, pick: Pick, *, users: int = 400, seed: int = 0
) -> dict[str, float | None]:
    """Measures by name: the worse of training users and judges, on users that nothing was fitted on.

    `calibration_SIGNAL` relative to its base rate; `likelihood_gain`, what the consumption's log-likelihood gains over
    the base rate, as a share of what the truth itself gains on the same answers (None where the truth gains nothing);
    `two_sample_auc` and `session_length_ks`, the larger of open and closed loop.

    Args:
        fitted: with users fitted on the log that `truth` wrote.
        truth: the users who wrote it.
        pick: the policy that it was written under.
        users: most users measured on.
        seed: of all draws.
    """
    config = FidelityConfig(users=users, seed=seed)
    names = [name for name in fitted.simulators if name == "train" or name.startswith("judge")]
    reports = [fidelity_of(fitted, name, pick=pick, config=config) for name in names]
    reference = fidelity_of(fitted, truth, config=config)
    found: dict[str, float | None] = {}
    calibrations = dict.fromkeys(x.name for r in reports for x in r.lines if x.name.startswith(CALIBRATION))
    for name in (*calibrations, *WORST):
        found[name] = max(_values(reports, name), default=None)
    line = f"likelihood_gain_{fitted.signals[0].name}"
    most = _values([reference], line)
    gains = _values(reports, line)
    found["likelihood_gain"] = min(gains) / most[0] if gains and most and most[0] > 0 else None
    return found


def _values(reports: Sequence[FidelityReport], name: str) -> list[float]:
    return [line.value for report in reports for line in report.lines if line.name == name]
