"""Parts of a comparison's report: how far the world's users can be believed, who they are, how each segment fares."""

from recloop.encoders.base.names import html_escape as escape
from recloop.envs.evidence.fidelity import FidelityReport, failures, reports_on
from recloop.envs.evidence.verdict import Verdict
from recloop.envs.world.world import Card, World
from recloop.experiments.comparison.results import Comparison
from recloop.experiments.comparison.segments import NOTE, SegmentLine, cells, segment_lines
from recloop.experiments.report.tables import SAID, pattern_rows, simulator_in_words

TONES = {Verdict.passed: "up", Verdict.failed: "down", Verdict.cannot_tell: ""}


def failure_notice(card: Card) -> str:
    """A warning where a fidelity report on the card failed, else nothing."""
    found = failures(card)
    if not found:
        return ""
    said = " ".join(f"{escape(sentence)}." for sentence in found)
    return f'<section class="warn"><b>This world failed its fidelity report.</b> {said}</section>'


def fidelity_section(card: Card) -> str:
    """A table a simulator: every line with its pass line and its reason; what the log does not support."""
    reports = reports_on(card)
    if not reports:
        return ""
    return "<h2>Fidelity</h2>" + "".join(_report(report) for report in reports)


def _report(report: FidelityReport) -> str:
    rows = "".join(
        f'<tr><td>{escape(line.name)}</td><td>{escape(line.loop)}</td><td class="n">{line.value:.3f}'
        f'<span class="i">[{line.low:.3f}, {line.high:.3f}]</span></td><td class="n">{escape(line.rule)}</td>'
        f'<td class="{TONES[line.verdict]}">{SAID[line.verdict]}</td>'
        f"<td>{escape(line.reason)}</td></tr>"
        for line in report.lines
    )
    cannot = "".join(f"<li>{escape(sentence)}</li>" for sentence in report.unsupported)
    return (
        f"<section><h3>{escape(report.verdict)}</h3><table><thead><tr><th>measure</th><th>loop</th>"
        f"<th class=n>value</th><th class=n>passes</th><th></th><th>why</th></tr></thead><tbody>{rows}</tbody></table>"
        f'<p class="note">{report.users:,} users that nothing was fitted on, {report.slates:,} slates, '
        f"{report.sessions:,} sessions. Brackets: 95 % interval over users. Loop: the next answer along the log; "
        f"sessions on the logged slates (open); sessions under the logging policy (closed).</p>"
        f"<ul>{cannot}</ul></section>"
    )


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
