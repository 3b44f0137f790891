"""Where an item stands in its slate, and what stands around it: inputs beside what its user felt."""

import torch
from torch import Tensor

from recloop.envs.users.fitted.inputs.groups import Groups
from recloop.envs.users.fitted.inputs.item_facts import PLACE


def in_slates(
    groups: Groups, positions: int, items: Tensor, rows: Tensor, found: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Of items in slates (B, K), by group of inputs, (B, K, n) each.

    Args:
        groups: of the items.
        positions: places that the log tells apart.
        rows: (B, K, T) the items' traits.
        found: what was felt of them, `online taste` and `similar items` among it.
    """
    k = items.shape[1]
    held = items < len(groups.of) - 1
    size = held.sum(1, keepdim=True).clamp_min(1)
    here = torch.arange(k, device=items.device).clamp(max=max(positions - 1, 0))
    wanted = found["online taste"][..., 0].masked_fill(~held, -torch.inf)
    near = found["similar items"][..., 0].masked_fill(~held, -torch.inf)
    ranks = [(x.unsqueeze(2) < x.unsqueeze(1)).sum(2) for x in (wanted, near)]
    mean = wanted.masked_fill(~held, 0).sum(1, keepdim=True) / size
    best = wanted.amax(1, keepdim=True).masked_fill(~held.any(1, keepdim=True), 0)
    placed = rows[..., :PLACE]
    alike = placed @ placed.transpose(1, 2)  # (B, K, K)
    other = ~torch.eye(k, dtype=torch.bool, device=items.device) & held.unsqueeze(1)
    similar = alike.masked_fill(~other, 0).sum(2) / (size - 1).clamp_min(1)
    above = torch.ones(k, k, dtype=torch.bool, device=items.device).tril(-1) & held.unsqueeze(1)
    nearest = alike.masked_fill(~above, -2.0).amax(2)
    same = groups.same(items)  # (B, K, K, G)
    others = (same & other.unsqueeze(-1)).sum(2)
    over = (same & above.unsqueeze(-1)).sum(2)
    around = [x.to(rows.dtype) for x in ranks]
    around += [wanted.masked_fill(~held, 0) - mean, mean.expand_as(wanted), best.expand_as(wanted)]
    around += [similar, nearest, size.to(rows.dtype).expand_as(wanted)]
    spots = torch.stack([here.to(rows.dtype), 1 / (1 + here)], dim=-1)
    return {
        "place": spots.expand(len(items), k, 2),
        "rest of the slate": torch.cat([torch.stack(around, dim=-1), others[..., 1:], over[..., 1:]], dim=-1),
    }


def alone(groups: Groups, items: Tensor, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """As `in_slates`, of items (B, M) each of which is shown alone at the top."""
    wanted = found["online taste"][..., 0]
    zero, one = torch.zeros_like(wanted), torch.ones_like(wanted)
    around = torch.stack([zero, zero, zero, wanted, wanted, zero, zero - 2, one], dim=-1)
    more = around.new_zeros(*items.shape, 2 * (len(groups.sizes) - 1))
    return {"place": torch.stack([zero, one], dim=-1), "rest of the slate": torch.cat([around, more], dim=-1)}
