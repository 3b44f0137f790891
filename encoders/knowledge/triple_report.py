"""What reading a file of triples met: rows, duplicates, and the lines that could not be read."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.knowledge.graph import KnowledgeGraph

OnBadLines = Literal["error", "skip"]
_SHOWN = 5
"""Broken lines that a report repeats."""


@dataclass(frozen=True)
class TripleReport:
    """What a file of triples held.

    Args:
        source: the file, or the address of a store.
        rows: triples read, broken ones included; of a query, its answers.
        kept: distinct triples in the graph.
        duplicates: triples that were there before.
        broken: lines that could not be read and were left out.
        passed_over: triples that were read and are none between named things: literals, blank nodes.
        first_broken: the first of the broken lines, as the error would say it.
    """

    source: str
    rows: int
    kept: int
    duplicates: int = 0
    broken: int = 0
    passed_over: int = 0
    first_broken: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = {"duplicates": self.duplicates, "broken": self.broken, "literals or blank nodes": self.passed_over}
        left_out = ", ".join(f"{count:,} {what}" for what, count in parts.items() if count)
        first = f"; first broken: {self.first_broken[0]}" if self.first_broken else ""
        return f"{self.source}: {self.kept:,} triples of {self.rows:,}" + (f" ({left_out}{first})" if left_out else "")

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "first_broken": list(self.first_broken)}


@dataclass
class BadLines:
    """What to do with lines that cannot be read: raise at the first, or leave them out and count them."""

    on_bad_lines: OnBadLines = "error"
    count: int = 0
    first: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.on_bad_lines not in ("error", "skip"):
            raise EncoderError(f"on_bad_lines='{self.on_bad_lines}' is unknown; use 'error' or 'skip'")

    def meet(self, message: str) -> None:
        """Raise `message`, which names file and line, or count the line."""
        if self.on_bad_lines == "error":
            raise EncoderError(f"{message}; mend the file, or leave such lines out: on_bad_lines='skip'")
        self.count += 1
        if len(self.first) < _SHOWN:
            self.first.append(message)

    def closed(self, path: Path, graph: KnowledgeGraph, passed_over: int = 0) -> tuple[KnowledgeGraph, TripleReport]:
        """`graph` with each triple once, and the report; `EncoderError` where no triple is left."""
        once, rows = graph.distinct(), len(graph.triples)
        report = TripleReport(
            source=str(path),
            rows=rows + self.count + passed_over,
            kept=len(once.triples),
            duplicates=rows - len(once.triples),
            broken=self.count,
            passed_over=passed_over,
            first_broken=tuple(self.first),
        )
        if not rows:
            raise EncoderError(f"no triple was left of {report}; check the file, the query and its language of labels")
        return once, report
