"""Where users are when an episode starts: the state encoder run over all that the log holds of them."""

import numpy as np
import torch
from torch import Tensor

from recloop.encoders.state.config import EncoderState
from recloop.encoders.state.encoder import StateEncoder
from recloop.envs.logs.sequences import Sequences

_PLACES = 100_000
"""Items encoded at once: users times the longest history among them."""


@torch.no_grad()
def warm_states(
    encoder: StateEncoder, profile: Tensor, history: Tensor, feedback: Tensor, sequences: Sequences
) -> EncoderState:
    """The states of U users after their whole logged histories, of which an observation holds the newest items.

    Args:
        encoder: on any device.
        profile: float32 (U, p).
        history: int64 (U, H) the newest items of each.
        feedback: float32 (U, H, S).
        sequences: of the same users; read for those who consumed more than H.

    Returns:
        U lanes on the encoder's device.
    """
    device = encoder.item_vectors.device
    lengths = np.full(len(history), history.shape[1])
    if sequences.users == len(history):
        lengths = np.maximum(lengths, sequences.lengths)
    order = np.argsort(-lengths, kind="stable")
    parts, first = [], 0
    while first < len(order):
        longest = int(lengths[order[first]])
        users = order[first : first + max(1, _PLACES // max(longest, 1))]
        first += len(users)
        rows = torch.from_numpy(users)
        items, signals = history[rows], feedback[rows]
        if longest > history.shape[1]:
            items, signals = sequences.last(users, longest)
        parts.append(encoder.start(profile[rows].to(device), items.to(device), signals.to(device), keep=True))
    back = torch.from_numpy(np.argsort(order, kind="stable")).to(device)
    return EncoderState.concatenate(parts).rows(back) if parts else encoder.blank(profile.to(device))
