"""Training examples: a user at a moment, warmed as an episode starts, and the steps that follow."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recloop.envs.logs.sequences import Floats, Ints, Sequences
from recloop.envs.logs.walk import steps_between, steps_in_session
from recloop.envs.users.fitted.inputs.slate_context import Recalled


@dataclass(frozen=True)
class Windows:
    """B moments. Steps are slates where the log has exposures, else single consumptions (K = 1).

    T and H are no longer than some window of the batch needs.

    Args:
        users: int64 (B,) rows of the users table.
        history, feedback: (B, H), (B, H, S) newest consumptions before the first step; replayed without loss.
        items: int64 (B, T, K); N at empty places and after the user's last step.
        signals: float32 (B, T, K, S) the answers; 0 where not given.
        given: bool (B, T, K, S).
        scored: bool (B, T) steps with loss; the others only lead in.
        left: int8 (B, T) 1 left, 0 stayed, -1 nobody knows.
        session_step: float32 (B, T) slates answered in the session before.
        place: int64 (B, T) items consumed before the step.
        past: what the family looks back at before each step, leading dims (B, T): consumption as far as the log
            goes, slates within the window; None where it does not look back.
        days_away: float32 (B, T) days until the user came back after this step; NaN where nobody knows.
        weight: float32 (B, T, K) of each place in the loss.
    """

    users: Tensor
    history: Tensor
    feedback: Tensor
    items: Tensor
    signals: Tensor
    given: Tensor
    scored: Tensor
    left: Tensor
    session_step: Tensor
    place: Tensor
    past: Recalled | None
    days_away: Tensor
    weight: Tensor

    def to(self, device: torch.device | str) -> "Windows":
        """The same windows on a device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        past = self.past and Recalled(**{name: value.to(device) for name, value in vars(self.past).items()})
        return Windows(**moved, past=past)


class WindowMaker:
    """Cuts windows out of sequences.

    Args:
        sequences: the log.
        history: H.
        lead: slates without loss at a window's start.
        window: T, steps with loss.
        memory: whether `past` is wanted.
        weight: float32 (Q, K) of each logged place in the loss; default 1.
    """

    def __init__(
        self,
        sequences: Sequences,
        history: int,
        lead: int,
        window: int,
        memory: bool,
        weight: Floats | None = None,
    ) -> None:
        self.sequences, self.history, self.window, self.memory = sequences, history, window, memory
        self.weight = weight
        slates = sequences.slates
        self.lead = lead if slates is not None else 0
        self.offsets, self.first_scored = sequences.step_offsets, sequences.first_scored
        self.session_step = None if slates is None else steps_in_session(slates)

    def moments(self, users: Ints, generator: torch.Generator | None = None) -> npt.NDArray[np.int64]:
        """Moments (W, 3) of (user, first scored step, lead) that cover the users' steps which may be scored.

        With a generator half of the users' are shifted by chance, and half of them have no lead: an episode may start
        from logged consumption alone.
        """
        counts = np.diff(self.offsets)[users]
        shift = np.zeros(len(users), dtype=np.int64)
        if generator is not None:
            shift = torch.randint(self.window, (len(users),), generator=generator).numpy()
            shift = shift * torch.randint(2, (len(users),), generator=generator).numpy()
        pieces = -(-np.maximum(counts + shift, 1) // self.window)  # windows a user, the first may be short
        pieces = np.where(counts > 0, pieces, 0)
        owner = np.repeat(np.arange(len(users)), pieces)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        starts = within * self.window - shift[owner]
        lead = np.full(len(owner), self.lead)
        if generator is not None and self.lead > 0:
            lead = lead * torch.randint(2, (len(owner),), generator=generator).numpy()
        some = np.minimum(starts + self.window, counts[owner]) > self.first_scored[users[owner]]
        moments: npt.NDArray[np.int64] = np.stack([users[owner], starts, lead], axis=1)[some]
        return moments

    def cut(self, moments: npt.NDArray[np.int64]) -> Windows:
        """The windows at moments (B, 3); a negative start, or one before `Sequences.first_scored`, has fewer scored
        steps."""
        users, starts, lead = moments.T
        begin = np.maximum(starts - lead, 0)
        end = np.minimum(starts + self.window, np.diff(self.offsets)[users])
        steps = steps_between(self.sequences, users, begin, end)
        items, signals, place, rows = steps.items, steps.answers, steps.consumed_before, steps.rows
        scored = steps.held & (steps.step >= np.maximum(starts, self.first_scored[users])[:, None])
        length = int(np.clip(place[:, 0].max(initial=1), 1, self.history))
        history, feedback = self.sequences.last(users, length, place[:, 0])
        in_session = np.zeros_like(rows) if self.session_step is None else self.session_step[rows]
        weight = np.ones(items.shape, dtype=np.float32) if self.weight is None else self.weight[rows]
        return Windows(
            users=torch.from_numpy(users.copy()),
            history=history,
            feedback=feedback,
            items=torch.from_numpy(items),
            signals=torch.from_numpy(signals),
            given=torch.from_numpy(steps.given),
            scored=torch.from_numpy(scored),
            left=torch.from_numpy(steps.left),
            session_step=torch.from_numpy(in_session.astype(np.float32)),
            place=torch.from_numpy(place.astype(np.int64)),
            past=self._past(users, place, items, signals) if self.memory else None,
            days_away=torch.from_numpy(steps.days_away),
            weight=torch.from_numpy(weight),
        )

    def _past(self, users: Ints, place: Ints, items: Ints, signals: Floats) -> Recalled:
        b, t, k = items.shape
        length = int(np.clip(place.max(initial=1), 1, self.history))
        history, feedback = self.sequences.last(np.repeat(users, t), length, place.reshape(-1))
        padded = np.concatenate([np.full((b, self.lead, k), self.sequences.catalogue_size), items], axis=1)
        answers = np.concatenate([np.zeros((b, self.lead, k, signals.shape[3]), dtype=np.float32), signals], axis=1)
        back = np.arange(t)[:, None] + np.arange(self.lead)  # (T, L) places in `padded` before each step
        return Recalled(
            history=history.view(b, t, length),
            feedback=feedback.view(b, t, length, -1),
            shown=torch.from_numpy(padded[:, back]),
            answers=torch.from_numpy(answers[:, back]),
        )
