"""The benchmark of the text encoder: texts a second, by number type and batch, beside hashed words."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from recloop.encoders.base.errors import EncoderError, RecloopError, unknown_name
from recloop.encoders.text.encoder import HashedText, TextEncoder
from recloop.encoders.text.models import DEFAULT_MODEL
from recloop.envs.logs.schema import Columns
from recloop.envs.simulation.core import checked_device
from recloop.envs.truth.catalogue import truth_catalogue
from recloop.experiments.bench.timing import Pace, Paced, Row, against
from recloop.experiments.provenance import use_threads
from recloop.experiments.settings import at_least

NumberType = Literal["float32", "bfloat16"]
_TOPICS = 6
_HASHED_WIDTH = 384
"""Length of the hashed vectors: that of the default model's."""


@dataclass(frozen=True)
class BenchTextConfig:
    """Time the text encoder: texts a second, nothing cached."""

    model: str = DEFAULT_MODEL
    """Text model: a name or a folder."""
    dtypes: tuple[NumberType, ...] = ("float32", "bfloat16")
    """Number types of the model."""
    batches: tuple[int, ...] = (1, 8, 32, 128)
    """Texts a forward pass."""
    texts: int = 128
    """Distinct texts, a sentence or two each."""
    repeats: int = 3
    """Turns of a measurement; the median counts."""
    threads: int = 1
    """Torch threads."""
    device: str = "cpu"
    """Torch device."""
    out: Path | None = None
    """Folder for bench.json and bench.csv."""
    keep: Path | None = None
    """CSV into which the rows are put, such as experiments/results/speed.csv."""

    def __post_init__(self) -> None:
        for dtype in self.dtypes:
            if dtype not in get_args(NumberType):
                raise RecloopError(unknown_name("number type", dtype, get_args(NumberType)))
        if not self.dtypes or not self.batches:
            raise RecloopError("nothing to measure; give one of --dtypes and one of --batches or more")
        at_least(1, batches=min(self.batches), texts=self.texts, repeats=self.repeats, threads=self.threads)


def bench_text(config: BenchTextConfig) -> list[Row]:
    """Measure; without the default model, hashed words alone."""
    checked_device(config.device)
    use_threads(config.threads)
    texts = list(truth_catalogue(_TOPICS, max(config.texts, _TOPICS), 0).items[Columns.text])[: config.texts]
    hashed = HashedText(_HASHED_WIDTH)
    words = Paced("hashed words", len(texts), lambda: hashed.encode(texts))
    pace = Pace(config.repeats, 0.0)
    rows = []
    for name, batch, subject in _subjects(config, texts) or [("hashed words", 0, words)]:
        mine, theirs, ratio = against(subject, words, pace)
        reference = f"{words.name}: {theirs:,.0f}"
        rows.append(Row(name, batch, 0, 0, config.device, config.threads, mine, "texts/s", reference, ratio))
    return rows


def _subjects(config: BenchTextConfig, texts: list[str]) -> list[tuple[str, int, Paced]]:
    """What is timed; nothing where the default model is not installed."""
    try:
        return list(_models(config, texts))
    except EncoderError:
        if config.model == DEFAULT_MODEL:
            return []
        raise


def _models(config: BenchTextConfig, texts: list[str]) -> Iterator[tuple[str, int, Paced]]:
    for dtype in config.dtypes:
        for batch in config.batches:
            encoder = TextEncoder(config.model, batch_size=batch, dtype=dtype, device=config.device, use_cache=False)
            name = f"{Path(config.model).name}, {dtype}"
            yield name, batch, Paced(name, len(texts), partial(encoder.encode, texts), config.device)
