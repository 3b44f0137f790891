"""Charts as inline SVG: hovered over without scripts, read aloud as text, coloured by the style sheet of the page.

from recloop.experiments.report.charts import Mark, interval_chart
interval_chart("Return", [Mark("ppo", Interval(5.2, 5.0, 5.4), "ppo: 5.20 [5.00, 5.40]")])
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from markupsafe import Markup

from recloop.encoders.base.names import visible
from recloop.experiments.comparison.intervals import Interval

WIDTH, NAMES, ROW, AXIS = 460, 120, 24, 28
"""Units of the drawing: the whole width, that of the names, the heights of a row and of the axis below the rows."""
_CURVES, _LONGEST, _COLOURS, _POINTS = 240, 16, 8, 30


@dataclass(frozen=True)
class Mark:
    """A row of an interval chart.

    Args:
        name: of the row, cut where it is long.
        interval: drawn as a line with a dot at its mean; "not known" where it is no number.
        told: what hovering over it, or reading it aloud, says; whole.
        dots: smaller ones below it, of the seeds.
        tone: class of the style sheet: `up`, `down`, `open` or `bound` (both grey), or "".
    """

    name: str
    interval: Interval
    told: str
    dots: Sequence[float] = ()
    tone: str = ""


@dataclass(frozen=True)
class Band:
    """A curve of a curve chart: values (n,) over steps (n,) within a band from `low` to `high`, both (n,)."""

    name: str
    steps: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]

    def told(self, at: int) -> str:
        """One point in words."""
        span = "" if self.low[at] == self.high[at] else f" [{self.low[at]:.2f}, {self.high[at]:.2f}]"
        return f"{self.name}, step {self.steps[at]:,.0f}: {self.mean[at]:.2f}{span}"


def interval_chart(title: str, marks: Sequence[Mark], zero: bool = False) -> Markup:
    """A row a mark, one scale for all; with a line at zero where `zero`."""
    numbers = [x for m in marks for x in (m.interval.low, m.interval.mean, m.interval.high, *m.dots)]
    height = ROW * len(marks)
    across = _Scale.over([*numbers, *([0.0] if zero else [])], NAMES + 8, WIDTH - 14)
    svg = _drawing(title, [mark.told for mark in marks], height + AXIS)
    _ticks_across(svg, across, 0, height)
    if zero:
        _put(svg, "line", x1=across.at(0), x2=across.at(0), y1=0, y2=height, class_="zero")
    for place, mark in enumerate(marks):
        y = ROW * place + ROW / 2
        row = _put(svg, "g", class_=f"mark {mark.tone}")
        _put(row, "title", mark.told)
        _put(row, "rect", x=0, y=y - ROW / 2, width=WIDTH, height=ROW, class_="hover")
        _put(row, "text", _short(mark.name), x=NAMES, y=y + 4, text_anchor="end")
        known = mark.interval
        if not all(map(math.isfinite, (known.low, known.mean, known.high))):
            _put(row, "text", "not known", x=NAMES + 12, y=y + 4, class_="axis")
            continue
        _put(row, "line", x1=across.at(known.low), x2=across.at(known.high), y1=y, y2=y)
        _put(row, "circle", cx=across.at(known.mean), cy=y, r=4.5)
        for dot in filter(math.isfinite, mark.dots):
            _put(row, "circle", cx=across.at(dot), cy=y + 7, r=1.8)
    return _text_of(svg)


def small_interval(interval: Interval, among: Iterable[Interval]) -> Markup:
    """An interval for a cell of a table, on one scale with its column; empty where it is no number."""
    scale = _Scale.over([x for i in among for x in (i.low, i.high)], 5, 185)
    svg = ET.Element("svg", {"viewBox": "0 0 190 16", "class": "small", "aria-hidden": "true"})
    _put(svg, "line", x1=0, x2=190, y1=8, y2=8, class_="grid")
    if math.isfinite(interval.mean):
        row = _put(svg, "g", class_="mark")
        _put(row, "line", x1=scale.at(interval.low), x2=scale.at(interval.high), y1=8, y2=8)
        _put(row, "circle", cx=scale.at(interval.mean), cy=8, r=4.5)
    return _text_of(svg)


def curve_chart(title: str, bands: Sequence[Band]) -> Markup:
    """Curves with their bands, a legend below; points tell their step and values."""
    everything = [x for band in bands for x in (*band.low, *band.mean, *band.high)]
    across = _Scale.over([x for band in bands for x in band.steps], 52, WIDTH - 20)
    up = _Scale.over(everything, _CURVES - 6, 8)
    svg = _drawing(title, [band.told(-1) for band in bands], _CURVES + AXIS + 18 * math.ceil(len(bands) / 2) + 6)
    _ticks_across(svg, across, 0, _CURVES)
    for tick in up.ticks():
        _put(svg, "line", x1=46, x2=WIDTH - 10, y1=up.at(tick), y2=up.at(tick), class_="grid")
        _put(svg, "text", f"{tick:g}", x=42, y=up.at(tick) + 4, text_anchor="end", class_="axis")
    for place, band in enumerate(bands):
        kind = f"curve c{place % _COLOURS}" + (" dashed" if place >= _COLOURS else "")
        group = _put(svg, "g", class_=kind)
        points = [[(across.at(s), up.at(v)) for s, v in zip(band.steps, y, strict=True)] for y in _three(band)]
        _put(group, "polygon", points=_path([*points[0], *points[2][::-1]]))
        _put(group, "polyline", points=_path(points[1]))
        for at in range(0, len(band.steps), math.ceil(len(band.steps) / _POINTS)):
            x, y = points[1][at]
            _put(_put(group, "circle", cx=x, cy=y, r=3), "title", band.told(at))
        x, y = 52 + 204 * (place % 2), _CURVES + AXIS + 18 * (place // 2) + 10
        _put(group, "line", x1=x, x2=x + 22, y1=y, y2=y)
        legend = _put(group, "text", _short(band.name, 22), x=x + 28, y=y + 4)
        _put(legend, "title", band.name)
    return _text_of(svg)


@dataclass(frozen=True)
class _Scale:
    """From numbers to units of the drawing."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, numbers: Iterable[float], start: float, end: float) -> "_Scale":
        known = [x for x in numbers if math.isfinite(x)] or [0.0, 1.0]
        low, high = min(known), max(known)
        room = 0.04 * (high - low) or abs(high) or 1.0
        return cls(low - room, high + room, start, end)

    def at(self, number: float) -> float:
        return round(self.start + (number - self.low) / (self.high - self.low) * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        from matplotlib.ticker import MaxNLocator

        return [float(t) for t in MaxNLocator(4).tick_values(self.low, self.high) if self.low <= t <= self.high]


def _ticks_across(svg: ET.Element, scale: _Scale, top: float, bottom: float) -> None:
    for tick in scale.ticks():
        x = scale.at(tick)
        _put(svg, "line", x1=x, x2=x, y1=top, y2=bottom, class_="grid")
        _put(svg, "text", f"{tick:,.6g}", x=x, y=bottom + 18, text_anchor="middle", class_="axis")


def _drawing(title: str, told: Sequence[str], height: float) -> ET.Element:
    svg = ET.Element("svg", {"viewBox": f"0 0 {WIDTH} {height:g}", "role": "img", "aria-label": visible(title)})
    _put(svg, "desc", "; ".join(told))
    return svg


def _put(parent: ET.Element, tag: str, text: str = "", **attributes: object) -> ET.Element:
    """A shape or a text within another; names are data, so that they are shown and do nothing."""
    found = ET.SubElement(parent, tag, {k.rstrip("_").replace("_", "-"): str(v) for k, v in attributes.items()})
    found.text = visible(text) or None
    return found


def _three(band: Band) -> tuple[Sequence[float], ...]:
    return band.low, band.mean, band.high


def _path(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def _short(name: str, longest: int = _LONGEST) -> str:
    shown = visible(name)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def _text_of(svg: ET.Element) -> Markup:
    return Markup(ET.tostring(svg, encoding="unicode"))
