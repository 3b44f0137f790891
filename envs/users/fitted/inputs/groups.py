"""What belongs together, as the families read it: sums by group that no single group's weights stand behind."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Groups(nn.Module):
    """Several groupings of the items, numbered through; the first holds everything.

    Whatever is learned on top is shared by all groups (exchangeable, as in deep sets, Zaheer et al. 2017), so that
    what tires a user of one topic is known to tire of every other.

    Args:
        catalogue_size: N.
        sizes: how many groups each further grouping has.
    """

    of: Tensor

    def __init__(self, catalogue_size: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = (1, *sizes)
        self.count = sum(self.sizes)
        self.register_buffer("of", torch.full((catalogue_size + 1, len(self.sizes)), self.count))
        kind = torch.repeat_interleave(torch.arange(len(self.sizes)), torch.tensor(self.sizes))
        self.register_buffer("kind", torch.nn.functional.one_hot(kind, len(self.sizes)).to(torch.float32))

    kind: Tensor
    """float32 (C, G) which grouping each group is of."""

    @torch.no_grad()
    def fill(self, groups: Tensor) -> None:
        """Set the items' groups from int64 (N+1, G-1); a grouping's own count means none."""
        self.of[:-1, 0] = 0
        begin = 1
        for column, size in enumerate(self.sizes[1:]):
            number = groups[:, column]
            self.of[:, column + 1] = torch.where(number < size, number + begin, self.count)
            begin += size

    def sums(self, items: Tensor, values: Tensor) -> Tensor:
        """Values (..., K, F) of items (..., K), added up by group: (..., C, F)."""
        rows = self.of[items].flatten(0, -3)  # (R, K, G)
        flat = values.flatten(0, -3)  # (R, K, F)
        total = flat.new_zeros(len(flat), self.count + 1, flat.shape[-1])
        for column in rows.unbind(-1):
            total.scatter_add_(1, column.unsqueeze(-1).expand_as(flat), flat)
        return total[:, :-1].reshape(*items.shape[:-1], self.count, flat.shape[-1])

    def at(self, table: Tensor, items: Tensor) -> Tensor:
        """Rows of tables (..., C, F) at the groups of items (..., M): (..., M, G, F); 0 for no group."""
        padded = torch.nn.functional.pad(table, (0, 0, 0, 1)).flatten(0, -3)  # (R, C+1, F)
        groups = self.of[items]
        flat = groups.flatten(0, -3).flatten(1)  # (R, M*G)
        found = padded.gather(1, flat.unsqueeze(-1).expand(-1, -1, table.shape[-1]))
        return found.view(*groups.shape, table.shape[-1])

    def total_at(self, table: Tensor, items: Tensor) -> Tensor:
        """As `at`, for items (..., M) or (M,) alike, added up over the groupings: (..., M, F)."""
        padded = torch.nn.functional.pad(table, (0, 0, 0, 1)).flatten(0, -3)
        total = padded.new_zeros(len(padded), items.shape[-1], table.shape[-1])
        for column in self.of[items].unbind(-1):
            if items.dim() == 1:
                total = total + padded[:, column]
            else:
                total = total + padded.gather(1, column.flatten(0, -2).unsqueeze(-1).expand(-1, -1, table.shape[-1]))
        return total.view(*table.shape[:-2], *total.shape[1:])

    def same(self, items: Tensor) -> Tensor:
        """Whether items of slates (B, K) belong together in each grouping, bool (B, K, K, G)."""
        groups = self.of[items]
        known = (groups < self.count).unsqueeze(2)
        return (groups.unsqueeze(2) == groups.unsqueeze(1)) & known


def group_sizes(groups: Tensor) -> tuple[int, ...]:
    """How many groups each column of (N+1, G) has: what the empty place holds."""
    return tuple(int(size) for size in groups[-1]) if groups.shape[1] else ()
