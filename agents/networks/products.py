"""Inner products with gathered rows of a table that nobody trains."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def gathered_products(query: Tensor, table: Tensor, items: Tensor) -> Tensor:
    """Inner products (B, C) of queries (B, d) with the rows `items` (B, C) of a frozen table (N+1, d).

    Differentiable in the queries. The gathered rows (B, C, d) are not kept for the way back, where a weighted sum of
    rows needs no copy of them.
    """
    products: Tensor = _Gathered.apply(query, table, items)  # type: ignore[no-untyped-call]
    return products


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, table: Tensor, items: Tensor) -> Tensor:
        ctx.save_for_backward(table, items)
        return (query.unsqueeze(1) @ F.embedding(items, table).transpose(1, 2))[:, 0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        table, items = ctx.saved_tensors
        return F.embedding_bag(items, table, per_sample_weights=gradient.contiguous(), mode="sum"), None, None
