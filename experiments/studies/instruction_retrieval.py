"""Do instructions about held-out films retrieve what is meant? The fitted head beside the language model's cosine.

python -m recloop.experiments.studies.instruction_retrieval --log ../shared/data/ml-100k
python -m recloop.experiments.studies.instruction_retrieval --log ../shared/data/ml-1m

A fifth of the items is held out: no instruction in training is about them, and they stand in no softmax. The 200
instructions are each made from a held-out item, in frames, phrases and synonyms that training never used
(`recloop.encoders.instruction.spoken`). All items of the catalogue are ranked. What counts as fitting is every item
that satisfies the instruction; "something like ..." means the ten items most consumed together with the one it names,
which is left out of the ranking. Where one item alone fits, that item has to be found.

`cosine` is the language model's own, between the instruction and the item's text as the world has it (title, genres,
overview), which names nobody; `cosine to attributes` is that to the title and all attributes in words, which the head
reads too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from rich.table import Table
from torch import Tensor

from recloop.encoders.base.errors import RecloopError
from recloop.encoders.instruction.facts import WHOLE, Ints, ItemFacts
from recloop.encoders.instruction.fit import InstructionConfig, fit_instruction_encoder
from recloop.encoders.instruction.pairs import Instruction, draw_instructions
from recloop.encoders.instruction.spoken import SPOKEN
from recloop.encoders.text.encoder import TextEncoder
from recloop.encoders.text.models import DEFAULT_MODEL
from recloop.envs.build.instructions import log_facts
from recloop.envs.logs.compile import compile_sequences
from recloop.envs.logs.readers.any import read_log
from recloop.envs.logs.schema import Columns
from recloop.experiments.provenance import made_by
from recloop.experiments.report.results_table import keep_rows
from recloop.experiments.report.tables import wide_console
from recloop.experiments.settings import at_least

Floats = npt.NDArray[np.float64]

TOP = 10
HEAD, COSINE, TOLD = "head", "cosine", "cosine to attributes"
KEPT = Path(__file__).parent / "results" / "instruction_retrieval.csv"
COLUMNS = ("data", "what", "metric", "mean", "low", "high", "seeds", "command", "commit")
_DRAWS = 2_000


@dataclass(frozen=True)
class RetrievalConfig:
    """Success and precision at 10 of instructions about held-out items, beside the language model's cosine."""

    log: Path
    """A log with a knowledge graph."""
    text: str = DEFAULT_MODEL
    """Language model: a name or a folder."""
    instructions: int = 200
    """Held-out instructions a seed."""
    held_out: float = 0.2
    """Share of the items that no instruction in training is about."""
    seeds: int = 3
    """Each draws its own held-out items, instructions and fit."""
    out: Path = KEPT
    """Table that this log's rows are replaced in."""

    def __post_init__(self) -> None:
        at_least(1, instructions=self.instructions, seeds=self.seeds)
        if not 0 < self.held_out < 1:
            raise RecloopError(f"held_out={self.held_out}; give a share between 0 and 1")


@dataclass(frozen=True)
class Found:
    """What the rankings of one seed found, by ranking: float64 (I,), NaN where a measure does not apply.

    Args:
        kinds: of the instructions, (I,).
        success: whether a fitting item is among the ten best.
        precision: share of fitting items among them, where more than ten fit.
        held_out: success where held-out items alone are ranked; NaN where none of them fits.
    """

    kinds: tuple[str, ...]
    success: Mapping[str, Floats]
    precision: Mapping[str, Floats]
    held_out: Mapping[str, Floats]


def main(config: RetrievalConfig) -> pd.DataFrame:
    """Measure over the seeds, print the table and keep it."""
    log = read_log(config.log)
    sequences, _, _ = compile_sequences(log)
    facts = log_facts(log, sequences, np.arange(sequences.users))
    texts = list(log.items[Columns.text].fillna("").astype(str))
    model = TextEncoder(config.text)
    found = [one_seed(model, facts, texts, config, seed) for seed in range(config.seeds)]
    source = {"data": log.name, "seeds": config.seeds, **made_by()}
    rows = [{**row, **source} for row in summary(found)]
    table = pd.DataFrame(rows)[list(COLUMNS)]
    _print(table)
    keep_rows(config.out, COLUMNS, log.name, rows)
    return table


def one_seed(model: TextEncoder, facts: ItemFacts, texts: Sequence[str], config: RetrievalConfig, seed: int) -> Found:
    """Hold items out, fit on the others, and rank for instructions about what was held out."""
    rng = np.random.default_rng([seed, 0x4E1D])
    order = rng.permutation(len(texts))
    count = max(1, round(config.held_out * len(texts)))
    held_out, known = np.sort(order[:count]), np.sort(order[count:])
    asked = draw_instructions(facts, SPOKEN, held_out, config.instructions, rng)
    encoder = fit_instruction_encoder(model, facts, texts, InstructionConfig(), seed, items=known, progress=True)
    said = [instruction.text for instruction in asked]
    hidden = model.encode(said)
    scores = {
        HEAD: encoder.scores(said),
        COSINE: hidden @ model.encode(texts).T,
        TOLD: hidden @ model.encode(told(facts), progress=True).T,
    }
    return Found(
        kinds=tuple("two facts" if len(one.facts) > 1 else one.kind for one in asked),
        success={name: np.array([_share(own, one) > 0 for own, one in zip(table, asked, strict=True)], dtype=np.float64)
                 for name, table in scores.items()},
        precision={name: np.array([_share(own, one) if len(one.fitting) > TOP else np.nan
                                   for own, one in zip(table, asked, strict=True)])
                   for name, table in scores.items()},
        held_out={name: np.array([_among(own, one, held_out) for own, one in zip(table, asked, strict=True)])
                  for name, table in scores.items()},
    )  # fmt: skip


def told(facts: ItemFacts) -> list[str]:
    """Each item's title and all its attributes, in words."""
    lists = ["; ".join(f"{kind}: {value}" for kind, value in own if kind not in WHOLE) for own in facts.of_item]
    return [f"{title}. {names}" for title, names in zip(facts.titles, lists, strict=True)]


def summary(found: Sequence[Found]) -> list[dict[str, object]]:
    """Rows of the table: means over all seeds' instructions with bootstrap intervals, and paired differences."""
    rng = np.random.default_rng(0)
    rows = []
    measures = {
        f"success@{TOP}": [one.success for one in found],
        f"precision@{TOP}": [one.precision for one in found],
        f"success@{TOP}, held-out items alone": [one.held_out for one in found],
    }
    for metric, seeds in measures.items():
        values = {name: np.concatenate([one[name] for one in seeds]) for name in (HEAD, COSINE, TOLD)}
        values[f"{HEAD} - {COSINE}"] = values[HEAD] - values[COSINE]
        values[f"{HEAD} - {TOLD}"] = values[HEAD] - values[TOLD]
        for what, sample in values.items():
            rows.append({"what": what, "metric": metric, **bootstrap(sample, rng)})
    kinds = np.concatenate([one.kinds for one in found])
    for kind in sorted(set(kinds)):
        for name in (HEAD, COSINE, TOLD):
            sample = np.concatenate([one.success[name] for one in found])[kinds == kind]
            rows.append({"what": name, "metric": f"success@{TOP}, {kind} ({len(sample)})", **bootstrap(sample, rng)})
    return rows


def bootstrap(sample: Floats, rng: np.random.Generator) -> dict[str, float]:
    """Mean and its 95 % percentile interval over instructions; NaN is left out."""
    known = sample[~np.isnan(sample)]
    if not len(known):
        return {"mean": np.nan, "low": np.nan, "high": np.nan}
    means = known[rng.integers(len(known), size=(_DRAWS, len(known)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"mean": round(float(known.mean()), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def _share(scores: Tensor, asked: Instruction) -> float:
    """Share of fitting items among the ten best of scores (N,)."""
    if asked.named >= 0:
        scores = scores.index_fill(0, torch.tensor([asked.named]), -torch.inf)
    return float(np.isin(scores.topk(TOP).indices.numpy(), asked.fitting).mean())


def _among(scores: Tensor, asked: Instruction, held_out: Ints) -> float:
    """Success where held-out items alone are ranked; NaN where none of them fits."""
    if not len(np.intersect1d(asked.fitting, held_out)):
        return np.nan
    alone = torch.full_like(scores, -torch.inf)
    alone[torch.from_numpy(held_out)] = scores[torch.from_numpy(held_out)]
    return float(_share(alone, asked) > 0)


def _print(table: pd.DataFrame) -> None:
    shown = Table(title="Instructions about held-out items", title_justify="left")
    for name in ("what", "metric", "mean", "low", "high"):
        shown.add_column(name, justify="left" if name in ("what", "metric") else "right")
    for row in table.to_dict("records"):
        numbers = (f"{float(row[name]):.3f}" for name in ("mean", "low", "high"))
        shown.add_row(str(row["what"]), str(row["metric"]), *numbers)
    wide_console().print(shown)


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(RetrievalConfig, main)
