"""Recurrent users: what they want is a hidden state that every step moves."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.envs.logs.schema import Signal
from recloop.envs.users.fitted.answering import FittedState, FittedUsers, Memory, Sizes, session_clock
from recloop.envs.users.fitted.heads import centred


@dataclass(frozen=True)
class RecurrentState(FittedState):
    """State of recurrent users.

    Args:
        hidden: float32 (B, dh).
        profile: float32 (B, p), as they arrived.
    """

    hidden: Tensor
    profile: Tensor


class RecurrentMemory(Memory):
    """A GRU cell (Cho et al. 2014) advanced once a step, as in GRU4Rec (Hidasi et al. 2016).

    Differences: an order-free input over several items a step, their answers beside them; in logs with exposures
    also the mean of what was shown, so that boredom can be felt; the profile enters at the start and at the end.
    """

    def __init__(self, signals: tuple[Signal, ...], sizes: Sizes) -> None:
        super().__init__()
        self.signals, self.sizes = signals, sizes
        width = sizes.item_dim + sizes.residual + len(signals)
        width = 2 * width + 4 if sizes.exposures else width
        self.cell: nn.GRUCell = nn.utils.skip_init(  # type: ignore[no-untyped-call]
            nn.GRUCell, width, sizes.hidden
        )
        self.start = nn.Parameter(torch.zeros(sizes.hidden, sizes.profile_dim))
        self.user_dim = sizes.hidden + sizes.profile_dim + (2 if sizes.exposures else 0)

    def blank(self, profile: Tensor) -> RecurrentState:
        """A hidden state from the profile (B, p) alone."""
        hidden = torch.tanh(profile @ self.start.T)
        return RecurrentState(steps=hidden.new_zeros(len(profile)), hidden=hidden, profile=profile)

    def inputs(self, table: Tensor, items: Tensor, signals: Tensor, shown: bool) -> Tensor:
        """(..., 1 + width): whether anything happened; what was consumed; with exposures, what was shown."""
        held = items < self.sizes.catalogue_size
        consumed = held & (signals[..., 0] > 0.5) if shown else held
        weight = consumed.to(table.dtype).unsqueeze(-1)  # (..., K, 1)
        count = weight.sum(-2)  # (..., 1)
        rows, answers = F.embedding(items, table), centred(self.signals, signals)
        read = torch.cat([rows, answers], dim=-1)  # (..., K, d + residual + S)
        parts = [count > 0, (read * weight).sum(-2) / count.clamp_min(1).sqrt()]
        if self.sizes.exposures:
            seen = held.to(table.dtype).unsqueeze(-1) * float(shown)
            size = seen.sum(-2)
            parts[0] = parts[0] | (size > 0)
            parts += [(read * seen).sum(-2) / size.clamp_min(1), torch.log1p(count), torch.log1p(size)]
        return torch.cat([parts[0].to(table.dtype), *parts[1:]], dim=-1)

    def advance(self, state: RecurrentState, step: Tensor) -> RecurrentState:
        """One step of the cell where anything happened."""
        read = step[:, 1:]
        if self.sizes.exposures:
            read = torch.cat([read, session_clock(state.steps)], dim=1)
        after = self.cell(read, state.hidden)
        return replace(state, hidden=torch.where(step[:, :1] > 0, after, state.hidden))

    def read(self, state: RecurrentState) -> tuple[Tensor, Tensor | None]:
        """Hidden state beside the profile and, with exposures, how far the session is."""
        parts = [state.hidden, state.profile]
        if self.sizes.exposures:
            parts.append(session_clock(state.steps))
        return torch.cat(parts, dim=-1), None


class RecurrentUsers(FittedUsers):
    """Fitted users whose state is recurrent; see `RecurrentMemory` and `Heads`."""

    kind = "recurrent"

    def _memory(self) -> Memory:
        return RecurrentMemory(self.signals, self.sizes)
