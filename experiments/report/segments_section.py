"""The part of a comparison's report about patterns: who the users are, and how each segment is served."""

from html import escape

from recloop.envs.world.world import World
from recloop.experiments.comparison.results import Comparison
from recloop.experiments.comparison.segments import NOTE, SegmentLine, cells, segment_lines
from recloop.experiments.report.patterns_tables import pattern_rows
from recloop.experiments.report.tables import simulator_in_words


def segments_section(comparison: Comparison) -> str:
    """Segments and topics with their names, and a table of returns by segment for each simulator."""
    known = _patterns(comparison.world)
    if not known:
        return ""
    lines = segment_lines(comparison)
    tables = "".join(_table(comparison, lines, simulator) for simulator in comparison.simulators if lines)
    return f"<h2>Segments of users</h2>{known}{tables}"


def _patterns(world: World) -> str:
    parts = []
    for title, head, rows in pattern_rows(world):
        names = "".join(f"<th>{escape(name)}</th>" for name in head)
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
        parts.append(
            f"<section><h3>{escape(title)}</h3><table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>"
            "</section>"
        )
    return "".join(parts)


def _table(comparison: Comparison, lines: tuple[SegmentLine, ...], simulator: str) -> str:
    rows, before = [], None
    for line in lines:
        if line.simulator != simulator:
            continue
        segment = "" if line.segment == before else f"{line.segment} {line.name} ({line.users:,} users)"
        before = line.segment
        policy, value, difference, p = (escape(cell) for cell in cells(line))
        tone = {1: "up", -1: "down", 0: ""}[0 if line.difference is None else line.difference.sign]
        rows.append(
            f'<tr><td>{escape(segment)}</td><td>{policy}</td><td class="n">{value}</td>'
            f'<td class="n"><span class="{tone}">{difference}</span></td><td class="n">{p}</td></tr>'
        )
    words = escape(simulator_in_words(comparison, simulator))
    return (
        f"<section><h3>Return by segment, in front of {words}</h3><table><thead><tr><th>segment</th><th>policy</th>"
        f"<th class=n>return</th><th class=n>minus {escape(comparison.reference)}</th><th class=n>p</th></tr></thead>"
        f'<tbody>{"".join(rows)}</tbody></table><p class="note">{escape(NOTE)}</p></section>'
    )
