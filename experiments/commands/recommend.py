"""Ask a saved policy outside any simulator: external item ids in and out.

recloop recommend policies/ppo --history 50,181,258 --k 10
recloop recommend policies/ppo --instruction "a funny film from the nineties" --k 10
recloop recommend policies/ppo --history 50,181,258 --rules rules.yaml --k 10
recloop recommend policies/ppo --history 50,181,258 --feedback rating=5,4,5 --candidates 1,2,3,4 --k 2
recloop recommend policies/ppo --history '"Cafe, noir",50'          an id with a comma: quotes as in CSV
recloop recommend policies/ppo --history "Cafe, noir" --history 50  or an option an id
"""

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.table import Table

from recloop.agents.observed import Observed
from recloop.agents.policy import SHORTLIST
from recloop.agents.registry import load_policy
from recloop.encoders.base.errors import PolicyError
from recloop.encoders.base.names import separated, visible
from recloop.encoders.instruction.encoder import InstructionWarning
from recloop.experiments.provenance import use_threads
from recloop.experiments.report.tables import wide_console
from recloop.experiments.settings import at_least

Ids = tyro.conf.UseAppendAction[tuple[str, ...]]
"""Item ids of an option that may be given more than once."""


@dataclass(frozen=True)
class RecommendConfig:
    """Ask a saved policy for items."""

    policy: tyro.conf.Positional[Path]
    """Policy folder."""
    history: Ids = ()
    """External item ids that the person consumed, oldest first: separated by commas, with quotes as in CSV; given more
    than once, an id each time, as it is."""
    feedback: tuple[str, ...] = ()
    """Signals of the history, such as rating=5,4,5; a value an item, empty where not given."""
    k: int = 10
    """How many items."""
    candidates: Ids = ()
    """External item ids to choose from, written like the history; default the whole catalogue."""
    instruction: str = ""
    """What the person says they want, in words."""
    shortlist: int = SHORTLIST
    """Items nearest to the instruction that a policy which does not read instructions chooses among."""
    exclude: Ids = ()
    """What to leave out: seen (default), nothing, or external item ids, written like the history."""
    rules: Path | None = None
    """YAML or JSON file of rules that the items keep together; default those that the policy was made for."""
    seed: int = 0
    """Of policies that draw."""
    trust: bool = False
    """Let the folder import a class of its own."""
    threads: int | None = None
    """Torch threads; default OMP_NUM_THREADS, else all cores."""

    def __post_init__(self) -> None:
        at_least(1, k=self.k, shortlist=self.shortlist, threads=self.threads)


def main(config: RecommendConfig) -> list[str]:
    """Print ids and titles, best first."""
    use_threads(config.threads)
    policy = load_policy(config.policy, trust=config.trust)
    history = _ids(config.history)
    observed = Observed(history=history, feedback=_feedback(config.feedback), instruction=config.instruction)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InstructionWarning)
        found = policy.recommend(
            observed,
            config.k,
            candidates=_ids(config.candidates) or None,
            exclude=_excluded(config.exclude),
            shortlist=config.shortlist,
            rules=config.rules,
            seed=config.seed,
        )
    for warning in caught:
        print(f"recloop: {visible(str(warning.message))}", file=sys.stderr)
    asked = f", asked for '{config.instruction}'" if config.instruction.strip() else ""
    table = Table(title=f"{policy.name}: after {len(history)} item(s){asked}", title_justify="left")
    for name in ("rank", "id"):
        table.add_column(name, justify="right")
    table.add_column("title")
    catalogue = policy.serving.world.catalogue if policy.serving else None
    for rank, name in enumerate(found, 1):
        title = catalogue.titles[catalogue.rows[name]] if catalogue else ""
        table.add_row(str(rank), name, title)
    wide_console().print(table)
    return found


def _ids(given: tuple[str, ...]) -> list[str]:
    """One option holds ids as a line of CSV does; several hold one each."""
    return separated(given[0]) if len(given) == 1 else list(given)


def _excluded(given: tuple[str, ...]) -> str | list[str]:
    return (given or ("seen",))[0] if given in ((), ("seen",), ("nothing",)) else _ids(given)


def _feedback(given: tuple[str, ...]) -> dict[str, list[float | None]] | None:
    """`rating=5,,4` -> {"rating": [5.0, None, 4.0]}."""
    found: dict[str, list[float | None]] = {}
    for part in given:
        name, equals, values = part.partition("=")
        try:
            found[name] = [float(v) if v.strip() else None for v in values.split(",")]
        except ValueError:
            equals = ""
        if not equals:
            raise PolicyError(f"--feedback {part} is not understood; write SIGNAL=VALUE,VALUE,... such as rating=5,4,5")
    return found or None


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(RecommendConfig, main)
