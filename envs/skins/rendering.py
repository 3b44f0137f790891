"""A lane as a picture: who the user is, what was shown, what they answered. Text or pixels."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.encoders.base.names import visible
from recloop.envs.logs.schema import Signal

if TYPE_CHECKING:
    from recloop.envs.simulation.driver import Driver

RENDER_MODES = ["ansi", "rgb_array"]
RENDERED_LANES = 16
"""Lanes that a batched skin renders at most."""

_RECENT = 8
"""Consumed items listed."""
_TITLE = 44
"""Characters of a title."""


@dataclass(frozen=True)
class Scene:
    """What is drawn of one lane.

    Args:
        heading: world, user, episode.
        progress: step, time limit, return so far, and how the episode ended.
        recent: titles consumed, newest last.
        slate: a title a place; empty where nothing was shown there.
        answers: an answer a place, as text.
        consumed: a place's item was consumed.
        state: float32 (d,) the user's vector.
    """

    heading: str
    progress: str
    recent: tuple[str, ...]
    slate: tuple[str, ...]
    answers: tuple[str, ...]
    consumed: tuple[bool, ...]
    state: npt.NDArray[np.float32]


def checked_render_mode(mode: str | None) -> str | None:
    """The mode, or `RecloopError` for an unknown one."""
    if mode is not None and mode not in RENDER_MODES:
        raise RecloopError(unknown_name("render_mode", mode, RENDER_MODES))
    return mode


def draw_lane(driver: "Driver", lane: int, mode: str | None) -> Any:
    """One lane as text (`ansi`) or uint8 (H, W, 3) (`rgb_array`)."""
    if mode is None:
        raise RecloopError(f"render_mode is None; make the environment with one of {', '.join(RENDER_MODES)}")
    scene = scene_of(driver, lane)
    return render_ansi(scene) if mode == "ansi" else render_rgb(scene)


def scene_of(driver: "Driver", lane: int) -> Scene:
    """The scene of one lane as its last action left it; the driver must be `watched`."""
    core = driver.core
    titles = core.world.catalogue.titles
    observation, user = driver.full_observation(lane)
    rows = [int(row) for row in observation["history"][0] if int(row) < core.empty]
    last = driver.last
    ended, length, total = "", int(driver.lengths[lane]), float(driver.returns[lane])
    slate: list[str] = []
    given: list[str] = []
    consumed: list[bool] = []
    if last is not None:
        length, total = int(last.lengths[lane]), float(last.returns[lane])
        ended = ", left" if bool(last.terminated[lane]) else ", time is up" if bool(last.truncated[lane]) else ""
    if last is not None and last.transition is not None:
        shown = last.transition
        signals, where = shown.response.signals[lane].cpu(), shown.response.given[lane].cpu()
        for place, row in enumerate(shown.slate[lane].tolist()):
            slate.append(short_title(titles[row]) if row < core.empty else "")
            values = zip(core.world.signals, signals[place].tolist(), where[place].tolist(), strict=True)
            given.append("  ".join(answer_text(signal, value) for signal, value, there in values if there))
            consumed.append(bool(where[place, 0]) and float(signals[place, 0]) > 0.5)
    elif "picked" in observation:
        slate = [short_title(titles[row]) if row < core.empty else "" for row in observation["picked"][0].tolist()]
        given, consumed = [""] * len(slate), [False] * len(slate)
    return Scene(
        heading=visible(f"{core.world.name}: user {core.world.users.ids[user]}, lane {int(core.lanes[lane])}"),
        progress=f"action {length}, at most {core.max_steps} slates, return {total:.2f}{ended}",
        recent=tuple(short_title(titles[row]) for row in rows[-_RECENT:]),
        slate=tuple(slate),
        answers=tuple(given),
        consumed=tuple(consumed),
        state=observation["state"][0].cpu().numpy().astype(np.float32),
    )


def render_ansi(scene: Scene) -> str:
    """A scene as text with ANSI colours; consumed places are green."""
    width = max((len(title) for title in scene.slate), default=0)
    lines = [f"\x1b[1m{scene.heading}\x1b[0m", scene.progress, "recently:"]
    lines += [f"  {title}" for title in scene.recent] or ["  nothing yet"]
    lines.append("slate:")
    for place, title in enumerate(scene.slate):
        text = f"  {place + 1:>2}. {title or '(empty)':<{max(width, 7)}}  {scene.answers[place]}".rstrip()
        lines.append(f"\x1b[32m{text}\x1b[0m" if scene.consumed[place] else text)
    if not scene.slate:
        lines.append("  not shown yet")
    lines.append(f"state: {_blocks(scene.state)}")
    return "\n".join(lines) + "\n"


def render_rgb(scene: Scene) -> npt.NDArray[np.uint8]:
    """A scene as pixels, uint8 (480, 800, 3); the state as bars."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.8), dpi=100, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    plain: dict[str, Any] = {"va": "top", "fontsize": 8, "parse_math": False}
    figure.text(0.03, 0.97, scene.heading, **{**plain, "fontsize": 11, "weight": "bold"})
    figure.text(0.03, 0.915, scene.progress, **plain)
    figure.text(0.03, 0.85, "recently consumed", **plain, weight="bold")
    figure.text(0.03, 0.81, "\n".join(scene.recent) or "nothing yet", **plain)
    figure.text(0.45, 0.85, "slate and answer", **plain, weight="bold")
    step = min(0.042, 0.55 / max(len(scene.slate), 1))
    for place, title in enumerate(scene.slate):
        text = f"{place + 1}. {title or '(empty)'}  {scene.answers[place]}"
        colour = "tab:green" if scene.consumed[place] else "black"
        figure.text(0.45, 0.81 - step * place, text, **plain, color=colour)
    if not scene.slate:
        figure.text(0.45, 0.81, "not shown yet", **plain)
    axes = figure.add_axes((0.07, 0.07, 0.9, 0.14))
    axes.bar(np.arange(len(scene.state)), scene.state, color="tab:blue")
    axes.set_ylim(-1, 1)
    axes.set_title("state", fontsize=8, loc="left", pad=2)
    axes.tick_params(labelsize=6)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.array(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    return pixels[..., :3].astype(np.uint8)


def answer_text(signal: Signal, value: float) -> str:
    """One signal of an answer in words, "click", "no click", "rating 4"."""
    name = visible(signal.name)
    if signal.kind == "binary":
        return name if value > 0.5 else f"no {name}"
    return f"{name} {value:g}"


def short_title(title: str) -> str:
    """A title on one line."""
    clean = visible(title)
    return clean if len(clean) <= _TITLE else clean[: _TITLE - 3] + "..."


def _blocks(state: npt.NDArray[np.float32]) -> str:
    """Numbers in [-1, 1] as block characters, at most 64 of them."""
    levels = "▁▂▃▄▅▆▇█"
    return "".join(levels[int(np.clip((value + 1) * 4, 0, 7))] for value in state[:64])
