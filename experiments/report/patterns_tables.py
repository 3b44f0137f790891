"""Segments of users and topics of behaviour as tables."""

from rich.table import Table

from recloop.encoders.patterns import Portrait
from recloop.envs.world.world import World

Rows = tuple[str, list[str], list[list[str]]]
"""Title, heads and rows of a table."""


def pattern_tables(world: World) -> list[Table]:
    """For the terminal; nothing where nobody looked for patterns."""
    tables = []
    for title, head, rows in pattern_rows(world):
        table = Table(title=title, title_justify="left")
        for place, name in enumerate(head):
            table.add_column(name, justify="right" if place < 2 else "left")
        for row in rows:
            table.add_row(*row)
        tables.append(table)
    return tables


def pattern_rows(world: World) -> list[Rows]:
    """Number, size, most telling attributes and items of every segment and topic."""
    patterns, found = world.patterns, []
    if patterns is not None and patterns.segments is not None:
        counts = patterns.segment.bincount(minlength=patterns.segments.dim).tolist()
        drawn = (*patterns.segments.portraits, Portrait((patterns.segments.names[-1],)))
        rows = [_row(place, f"{counts[place]:,}", portrait) for place, portrait in enumerate(drawn)]
        title = f"segments of users; {patterns.silhouettes}"
        found.append((title, ["segment", "users", "more than others", "most telling items"], rows))
    if patterns is not None and patterns.topics is not None:
        shares = patterns.mix.mean(0).tolist()
        rows = [_row(place, f"{shares[place]:.0%}", p) for place, p in enumerate(patterns.topics.portraits)]
        heads = ["topic", "share", "more than others", "most telling items"]
        found.append(("topics of behaviour; share of the mean user", heads, rows))
    return found


def _row(place: int, size: str, portrait: Portrait) -> list[str]:
    nothing = "" if portrait.attributes or portrait.items else portrait.name
    return [str(place), size, ", ".join(portrait.attributes) or nothing, ", ".join(portrait.items)]
