"""Logged answers as rows that models learn from: what a user felt before each, worked out as in the loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.envs.interaction.randomness import Draw, absorb
from recloop.envs.logs.sequences import Ints
from recloop.envs.users.fitted.felt.lasting import Lasting
from recloop.envs.users.fitted.felt.users import ABOVE, FeltUsers
from recloop.envs.users.fitted.fitting.calibration import Exposure
from recloop.envs.users.fitted.fitting.windows import WindowMaker, Windows
from recloop.envs.users.fitted.inputs.experience import ExperienceState
from recloop.envs.users.fitted.inputs.slate_context import Recalled

_CHUNK = 512
"""Moments walked at once."""

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Examples:
    """Q slates of K places; in a log without exposures single consumptions (K = 1).

    Args:
        inputs: float32 (Q, K, F) of every place, what was taken above it included.
        items: int64 (Q, K), N at empty places.
        signals, given: float32, bool (Q, K, S).
        weight: float32 (Q, K).
        ended: float32 (Q, E) what leaving reads, without the slates' appeal.
        left: int8 (Q,) 1 left, 0 stayed, -1 nobody knows.
        days: float32 (Q,) days away after it, NaN where not known.
        against: float32 (Q, C, F), their items (Q, C) and which count (Q, C): assumed shown beside a consumption.
        widths: by group of inputs, of `inputs` and of `ended`.
    """

    inputs: Array
    items: Ints
    signals: Array
    given: npt.NDArray[np.bool_]
    weight: Array
    ended: Array
    left: npt.NDArray[np.int8]
    days: Array
    against: Array
    against_items: Ints
    against_held: npt.NDArray[np.bool_]
    widths: tuple[Mapping[str, int], Mapping[str, int]]

    @property
    def held(self) -> npt.NDArray[np.bool_]:
        """bool (Q, K): there is an item."""
        return self.given[..., 0]


@torch.no_grad()
def examples(
    users: FeltUsers,
    columns: Tensor,
    profile: Tensor,
    maker: WindowMaker,
    rows: Ints,
    most: int,
    generator: torch.Generator,
    shifted: bool,
    exposure: Exposure | None,
    negatives: int,
    forecast: int | None = None,
) -> Examples:
    """Of the steps of `rows`, which may be scored, at most about `most` places.

    Where users have tastes of their own, these are drawn from what all of a user's log but the step itself tells.

    Args:
        columns: (N+1, c) what the memory reads of the items.
        shifted: half of the windows begin by chance and without remembered slates, as some episodes do.
        exposure: what was assumed shown, in logs without exposures.
        negatives: C, items drawn beside each consumption there.
        forecast: number of a draw of the tastes from what was known before each step alone, as who is measured must be.
    """
    moments = maker.moments(rows, generator if shifted else None)
    order = torch.randperm(len(moments), generator=generator).numpy()
    moments = moments[order]
    places = maker.sequences.slates.items.shape[1] if maker.sequences.slates is not None else 1 + negatives
    steps = np.minimum(maker.window, np.diff(maker.offsets)[moments[:, 0]] - np.maximum(moments[:, 1], 0))
    enough = int(np.searchsorted(np.cumsum(steps * places), most)) + 1
    lasting = None
    if users.memory.persons and forecast is None:
        lasting = Lasting(users.memory, maker.sequences, np.unique(moments[:enough, 0]), columns)
    found: list[dict[str, Tensor]] = []
    widths: list[Mapping[str, int]] = [{}, {}]
    for begin in range(0, len(moments[:enough]), _CHUNK):
        windows = maker.cut(moments[:enough][begin : begin + _CHUNK])
        state = _warm(users, columns, profile, windows)
        for t in range(windows.items.shape[1]):
            state = users.memory.at(state, windows.session_step[:, t], _away(windows, t))
            some = windows.scored[:, t].nonzero()[:, 0]
            if len(some):
                mine = state.rows(some)
                if lasting is not None:
                    mine = lasting.but_for(
                        mine, windows.users[some], windows.items[some, t], windows.signals[some, t], generator
                    )
                elif users.memory.persons:
                    key = absorb(absorb(windows.users[some], windows.place[some, t]), 1000 * t + (forecast or 0))
                    mine = users.memory.met(mine, Draw(key))
                told = _told(users, columns, windows, mine, some, t, widths)
                if exposure is not None:
                    told |= _against(users, columns, windows, mine, some, t, exposure, negatives, generator)
                found.append(told)
            rows_now = F.embedding(windows.items[:, t], columns)
            shown = users.sizes.exposures
            signals = windows.signals[:, t]
            state = users.memory.advance(state, users.memory.inputs(rows_now, windows.items[:, t], signals, shown))
    joined = {name: torch.cat([part[name] for part in found]).numpy() for name in found[0]}
    if exposure is None:
        none = np.zeros((len(joined["items"]), 0, joined["inputs"].shape[2]), dtype=np.float32)
        joined |= {"against": none, "against_items": none[..., 0].astype(np.int64), "against_held": none[..., 0] > 0}
    return Examples(**joined, widths=(widths[0], widths[1]))


def _warm(users: FeltUsers, columns: Tensor, profile: Tensor, windows: Windows) -> ExperienceState:
    """Users as the history of their windows leaves them."""
    memory = users.memory
    state = memory.blank(profile[windows.users])
    items = windows.history.unsqueeze(-1)
    warm = memory.inputs(F.embedding(items, columns), items, windows.feedback.unsqueeze(-2), shown=False)
    for step in warm.unbind(1):
        state = memory.advance(state, step)
    return state


def _away(windows: Windows, t: int) -> Tensor:
    """Days before the session that step t may open, (B,); 0 where nobody knows."""
    if t == 0:
        return torch.zeros(len(windows.users))
    return torch.nan_to_num(windows.days_away[:, t - 1])


def _lately(windows: Windows, some: Tensor, t: int) -> Recalled:
    """What is looked back at before step t, of the windows `some`."""
    assert windows.past is not None
    return Recalled(**{name: value[some, t] for name, value in vars(windows.past).items()})


def _told(
    users: FeltUsers,
    columns: Tensor,
    windows: Windows,
    state: ExperienceState,
    some: Tensor,
    t: int,
    widths: list[Mapping[str, int]],
) -> dict[str, Tensor]:
    """Rows of one step, of the windows `some`."""
    memory = users.memory
    slate, signals = windows.items[some, t], windows.signals[some, t]
    given, rows, felt = windows.given[some, t], F.embedding(slate, columns), memory.felt(state)
    parts = users.item_parts(felt, _lately(windows, some, t), slate, rows)
    parts[ABOVE] = users.above(slate, rows, signals[..., 0] * given[..., 0])
    ended = users.slate_parts(felt, slate, rows, signals, given, torch.zeros_like(signals[..., 0]))
    if not widths[0]:
        widths[:] = [{name: part.shape[-1] for name, part in both.items()} for both in (parts, ended)]
    return {
        "inputs": torch.cat(list(parts.values()), dim=-1),
        "items": slate,
        "signals": signals,
        "given": given,
        "weight": windows.weight[some, t],
        "ended": torch.cat(list(ended.values()), dim=-1),
        "left": windows.left[some, t],
        "days": windows.days_away[some, t],
    }


def _against(
    users: FeltUsers,
    columns: Tensor,
    windows: Windows,
    state: ExperienceState,
    some: Tensor,
    t: int,
    exposure: Exposure,
    negatives: int,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Items drawn from the assumed exposure beside each consumption."""
    drawn = torch.multinomial(exposure.share, len(some) * negatives, True, generator=generator)
    drawn = drawn.view(len(some), negatives)
    held = drawn != windows.items[some, t]
    if exposure.before is not None:
        held &= ~exposure.before(windows.users[some], drawn.unsqueeze(1), windows.place[some, t : t + 1])[:, 0]
    felt = users.memory.felt(state)
    inputs = users.item_inputs(felt, _lately(windows, some, t), drawn, F.embedding(drawn, columns))
    empty = inputs.new_zeros(len(some), negatives, len(users.groups.sizes) + 2)
    return {"against": torch.cat([inputs, empty], dim=-1), "against_items": drawn, "against_held": held}
