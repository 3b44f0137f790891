"""How often the gates let the truth pass on its own log, and how often they stop users with a planted fault.

    python -m recloop.experiments.studies.gates.study
    python -m recloop.experiments.studies.gates.study --worlds boredom --draws 20 --users 500

Nothing is fitted. In every truth world and draw the truth writes a log; then the users who wrote it, and the same users
with each fault, go through the replay gate (logging policies as code) and through the fidelity report, closed loop. A
row says how often each ended in passed, failed and cannot tell. Some faults are none in some worlds: where no place
matters, users without position effects are the truth.
"""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.encoders.base.progress import progress_bar
from recloop.envs.evidence.fidelity import FidelityConfig, fidelity_of
from recloop.envs.evidence.replay.gate import replay_gate
from recloop.envs.evidence.verdict import Verdict
from recloop.envs.logs.compile import compile_sequences
from recloop.envs.simulation.rollout import Pick
from recloop.envs.truth import LOG_USERS, TRUTHS, logging_policy, truth_log
from recloop.envs.users.contract import UserSimulator
from recloop.envs.world.world import World
from recloop.experiments.provenance import made_by, use_threads
from recloop.experiments.report.results_table import replace_rows
from recloop.experiments.report.tables import wide_console
from recloop.experiments.settings import at_least
from recloop.experiments.studies.gates.planted_faults import FAULTS
from recloop.experiments.studies.sardine.users import VARIANTS
from recloop.experiments.studies.truth.unit import TruthUnitConfig, truth_of

TRUTH = "truth"
GATES = ("replay", "fidelity")
KEY = ("world", "log", "log_users", "users", "gate")
COLUMNS = (*KEY, "draws", *(verdict.name for verdict in Verdict), "command", "commit")


@dataclass(frozen=True)
class GatesConfig:
    """Count how the gates end for the truth and for planted faults, over draws of truth worlds."""

    worlds: tuple[str, ...] = tuple(TRUTHS)
    """Truth worlds, and variants of SARDINE."""
    log: str = "mixed"
    """Kind of log."""
    draws: int = 20
    """Draws of each world and its log."""
    users: int = 2000
    """Who write the log; a gate looks at all of them."""
    faults: tuple[str, ...] = ("base rate + 50 %",)
    """Planted faults by name."""
    table: Path = Path("experiments/results/gates.csv")
    """CSV whose rows of the same worlds are replaced."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        at_least(1, draws=self.draws)
        at_least(16, users=self.users)
        known = (("truth world", self.worlds, (*TRUTHS, *VARIANTS)), ("fault", self.faults, tuple(FAULTS)))
        for kind, names, names_known in (*known, ("kind of log", (self.log,), tuple(LOG_USERS))):
            for name in names:
                if name not in names_known:
                    raise RecloopError(unknown_name(kind, name, names_known))


def main(config: GatesConfig) -> None:
    """Count, print, and keep the rows of each world as soon as they are known."""
    use_threads(1)
    for name in config.worlds:
        counts: dict[tuple[str, str], Counter[Verdict]] = {}
        for draw in progress_bar(range(config.draws), desc=name, unit="draw", disable=not config.progress):
            for key, verdict in _verdicts(name, draw, config).items():
                counts.setdefault(key, Counter())[verdict] += 1
        rows = [
            {
                "world": name,
                "log": config.log,
                "log_users": config.users,
                "users": users,
                "gate": gate,
                "draws": config.draws,
                **{verdict.name: found[verdict] for verdict in Verdict},
                **made_by(),
            }
            for (users, gate), found in counts.items()
        ]
        replace_rows(config.table, COLUMNS, KEY, rows)
        for row in rows:
            told = ", ".join(f"{verdict} {row[verdict.name]}" for verdict in Verdict)
            wide_console().print(f"{name}, {row['users']}, {row['gate']}: {told} of {config.draws}", soft_wrap=True)


def _verdicts(name: str, draw: int, config: GatesConfig) -> dict[tuple[str, str], Verdict]:
    """How each gate ended, by users and gate."""
    place = truth_of(TruthUnitConfig(name, config.log, draw, users=config.users))
    world = replace(place, sequences=compile_sequences(truth_log(place, config.log, seed=draw))[0])
    pick = logging_policy(world, config.log, draw)
    truth = world.simulators["truth"]
    users = {TRUTH: truth, **{fault: FAULTS[fault](truth) for fault in config.faults}}
    return {(who, gate): _ended(gate, world, them, pick, draw) for who, them in users.items() for gate in GATES}


def _ended(gate: str, world: World, users: UserSimulator, pick: Pick, draw: int) -> Verdict:
    rows = range(len(world.users))
    if gate == "replay":
        return replay_gate(world, users, rows=world.users.rows("all").numpy(), pick=pick, seed=draw + 1).verdict
    return fidelity_of(world, users, rows, pick=pick, config=FidelityConfig(users=len(rows), seed=draw)).outcome


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(GatesConfig, main)
