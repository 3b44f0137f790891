"""The language model of a build: over the items' texts, and over whole histories where those are read as text."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.state.behavior import TextBehavior
from recloop.encoders.text.encoder import HashedText, Pooling, TextEncoder, TextVectors
from recloop.encoders.text.tokens import Truncate
from recloop.envs.logs.behavior_text import default_template
from recloop.envs.logs.schema import Columns, LoggedBehavior

NumberType = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class TextModel:
    """Which model reads text and how; see `TextEncoder`.

    Args:
        name: a name, a folder, `hashed` (words, no model) or `none`.
        pooling, layer, prefix, max_length, dtype, revision: as of `TextEncoder`.
    """

    name: str
    pooling: Pooling
    layer: int
    prefix: str
    max_length: int
    dtype: NumberType
    revision: str | None

    def make(self, device: str, cache: Path | None, truncate: Truncate = "end") -> TextVectors | None:
        """The model, its vectors kept in `cache`; None for `none`."""
        if self.name == "none":
            return None
        if self.name == "hashed":
            return HashedText()
        settings = {name: value for name, value in asdict(self).items() if name != "name"}
        return TextEncoder(
            self.name, device=device, cache=cache, use_cache=cache is not None, truncate=truncate, **settings
        )


def item_text_vectors(
    log: LoggedBehavior, text: TextVectors | None, progress: bool, say: Callable[[str], None]
) -> Tensor | None:
    """What the items' texts say, float32 (N, t), and a line where some were cut; None without a model."""
    if text is None:
        return None
    vectors = text.encode(list(log.items[Columns.text].fillna("").astype(str)), progress)
    if isinstance(text, TextEncoder) and text.report.truncated:
        report = text.report
        say(
            f"item texts: {report.truncated:,} of {report.texts:,} ({report.share:.1%}) are longer than "
            f"{text.max_length} tokens or than the model reads, and were cut; raise --encoder.text-max-length"
        )
    return vectors


def history_reader(log: LoggedBehavior, text: TextVectors | None, refresh: int) -> TextBehavior:
    """Whole histories as text through the model `text`, read anew every `refresh` steps.

    Raises:
        EncoderError: without a model.
    """
    if text is None:
        raise EncoderError(
            "histories cannot be read as text without a text model; set --encoder.text, or --encoder.behavior items"
        )
    signals = [(signal.name, *signal.bounds) for signal in log.signals]
    return TextBehavior(
        text, list(log.items[Columns.title].astype(str)), signals, default_template(log.signals), refresh=refresh
    )


def reader_facts(reader: TextBehavior) -> list[Any]:
    """What the vectors of histories depend on, for the key of a stage."""
    model = reader.text.fingerprint if isinstance(reader.text, TextEncoder) else reader.text.dim
    return [model, reader.titles, reader.signals, asdict(reader.template), reader.window, reader.refresh]
