"""The part of a comparison's report that says how far the world's users can be believed."""

from html import escape

from recloop.envs.evidence.fidelity import FidelityReport, failures, reports_on
from recloop.envs.world.world import Card


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
        f'<td class="{"up" if line.passed else "down"}">{"passed" if line.passed else "FAILED"}</td>'
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
