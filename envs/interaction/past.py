"""How the past grows by a slate: the core's own record, and the same for whoever walks users along a log.

The windows of the last slates are copied, not kept as a ring: a ring was measured to save 0.07 microseconds a user and
step of some twenty, and what was handed out before would change under its readers' hands.
"""

import torch
from torch import Tensor

from recloop.envs.interaction.response import Past


def remember(past: Past, slate: Tensor, items: Tensor, signals: Tensor, empty: int, *, fresh: bool = False) -> Past:
    """The past after a slate; new tensors, so that what was handed out stays as it was.

    Args:
        past: of B lanes, before the slate.
        slate: int64 (B, K) what was shown.
        items: int64 (B, K) the slate with `empty` where nothing was consumed.
        signals: float32 (B, K, S) the answers.
        empty: N, what an empty place holds.
        fresh: the slate repeats no item and holds none that was seen, as a core's; saves looking.
    """
    length = past.history.shape[1]
    order = torch.argsort((items == empty).to(torch.int8), dim=1, stable=True)  # consumed first
    count = (items < empty).sum(1, keepdim=True)  # (B, 1)
    places = torch.arange(length, device=items.device) + count  # (B, H)
    history = torch.cat([past.history, items.gather(1, order)], dim=1).gather(1, places)
    sorted_signals = signals.gather(1, order.unsqueeze(2).expand_as(signals))
    feedback = torch.cat([past.feedback, sorted_signals], dim=1)
    feedback = feedback.gather(1, places.unsqueeze(2).expand(-1, -1, feedback.shape[2]))
    return Past(
        history=history,
        feedback=feedback,
        shown=torch.cat([past.shown[:, 1:], slate.unsqueeze(1)], dim=1),
        answers=torch.cat([past.answers[:, 1:], signals.unsqueeze(1)], dim=1),
        step=past.step + 1,
        days_away=torch.zeros_like(past.days_away),
        seen=None if past.seen is None else past.seen.added(items, fresh),
    )
