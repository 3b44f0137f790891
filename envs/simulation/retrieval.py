"""The k best of a large catalogue by inner product, exactly: blocked matrix products and a running top-k.

Nothing of size (B, N) is ever held, so that a million items cost what the products cost. Equal scores count by row, as
policies show them.

On few threads NumPy selects, whose comparisons and sorts are vector instructions: the same rows in less time.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recloop.encoders.base.errors import RecloopError

BLOCK_BYTES = {"cpu": 1 << 24, "cuda": 1 << 30}
"""Most bytes of scores held at once, by device type; a CPU's fit its last cache. Other devices: as the GPU's."""
_BLOCK_ITEMS = {"cpu": 1 << 14, "cuda": 1 << 18}
"""Most items scored at once: enough for a product to run at full speed, few enough for many queries to share them."""
_CHUNK = 64
"""Scores that share one maximum: the k best lie in the k chunks with the highest maxima, so few are sorted."""
_FEW_THREADS = 4
"""Up to so many NumPy, which uses one, is faster than torch, which uses all."""
_LEAST = np.finfo(np.float32).min
_ROWS = (1 << 32) - 1
_NOTHING = -0x7F800001 << 32
"""The key of -inf."""

Keys = npt.NDArray[np.int64]
"""(b, c): higher for higher scores, and of equal ones for lower rows, so that no two are equal; `_NOTHING` for none."""
Found = tuple[Tensor, Tensor]
"""Values (b, c), highest first, and their rows; which of equal values comes first, and is held at all, is open."""


class Best(NamedTuple):
    """The best rows of each query.

    Args:
        rows: int64 (B, k), the best first; N where fewer are admissible.
        scores: float32 (B, k); -inf there.
    """

    rows: Tensor
    scores: Tensor


class _Catalogue(NamedTuple):
    """What is searched: see `best_rows`."""

    table: Tensor
    bias: Tensor | None
    mask: Tensor | None
    seen: Tensor | None

    def of(self, lanes: slice) -> "_Catalogue":
        """The same for some of the queries."""
        mask = None if self.mask is None else self.mask[lanes]
        return self._replace(mask=mask, seen=None if self.seen is None else self.seen[lanes])


@torch.no_grad()
def best_rows(
    queries: Tensor,
    table: Tensor,
    k: int,
    *,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    seen: Tensor | None = None,
    block_bytes: int | None = None,
) -> Best:
    """The k rows with the highest `queries @ table.T + bias`, equal scores by row.

    Args:
        queries: float (B, d).
        table: float (N, d) on the same device. In bf16, queries are rounded to bf16 too and products summed in float32.
        k: 1 to N.
        bias: float32 (N,) added to every query's scores.
        mask: bool or int8 (B, N), which rows are admissible; default all.
        seen: int64 (B, M) rows that are not, in any order; N and repeats change nothing.
        block_bytes: most bytes of scores held at once; default `BLOCK_BYTES`. Beside them stand a 64th of it and
            O(B k).

    Raises:
        RecloopError: for a k outside 1 to N.
    """
    n = len(table)
    if not 1 <= k <= n:
        raise RecloopError(f"k={k} best rows of a table of {n}; choose k from 1 to {n}")
    kind = queries.device.type
    room = (block_bytes or BLOCK_BYTES.get(kind, BLOCK_BYTES["cuda"])) // 4
    width = max(min(n, _BLOCK_ITEMS.get(kind, _BLOCK_ITEMS["cuda"]), room), 1)
    lanes = max(room // width, 1)
    catalogue = _Catalogue(table, bias, mask, seen)
    queries = queries.to(table.dtype)
    parts = [
        _best(queries[first : first + lanes], catalogue.of(slice(first, first + lanes)), k, width)
        for first in range(0, max(len(queries), 1), lanes)
    ]
    return Best(torch.cat([part.rows for part in parts]), torch.cat([part.scores for part in parts]))


@torch.no_grad()
def best_of(scores: Tensor, k: int, mask: Tensor | None = None) -> Best:
    """The k highest scores (B, N) among the admissible, equal scores by row; see `best_rows`.

    >>> best_of(torch.tensor([[1.0, 3.0, 3.0, 9.0]]), 4, torch.tensor([[True, True, True, False]])).rows.tolist()
    [[1, 2, 0, 4]]
    """
    n = scores.shape[1]
    if not 1 <= k <= n:
        raise RecloopError(f"k={k} best of {n} scores; choose k from 1 to {n}")
    scores = scores.detach().to(torch.float32).clamp_min(torch.finfo(torch.float32).min)  # -inf says: not admissible
    scores = scores if mask is None else scores.masked_fill_(mask == 0, -math.inf)
    if _by_numpy(scores):
        return _of_keys(_joined(None, scores, 0, k), n)
    found = _top(scores, min(k + 1, n))
    best, doubtful = _in_order(*found, k, n)
    return _settle(best, doubtful, lambda: iter([(0, scores)]), n)


def _best(queries: Tensor, catalogue: _Catalogue, k: int, width: int) -> Best:
    """`best_rows` of queries few enough for one block of items."""
    n = len(catalogue.table)
    if _by_numpy(queries):
        keys: Keys | None = None
        for first, scores in _blocks(queries, catalogue, width):
            keys = _joined(keys, scores, first, k)
        assert keys is not None
        return _of_keys(keys, n)
    running: Found | None = None
    for first, scores in _blocks(queries, catalogue, width):
        values, columns = _top(scores, min(k + 1, scores.shape[1]))
        running = _merged(running, (values, columns + first), k + 1)
    assert running is not None
    best, doubtful = _in_order(*running, k, n)
    return _settle(best, doubtful, lambda: _blocks(queries, catalogue, width), n)


def _blocks(queries: Tensor, catalogue: _Catalogue, width: int) -> Iterator[tuple[int, Tensor]]:
    """Scores of one block of items after the other: the first row, and float32 (b, m); the next block overwrites it."""
    table, bias, mask, seen = catalogue
    store = torch.empty(len(queries) * width, device=queries.device)
    nothing = store.new_full((), -math.inf)
    for first in range(0, len(table), width):
        rows = table[first : first + width]
        m = len(rows)
        scores = store[: len(queries) * m].view(len(queries), m)
        _products(queries, rows, scores)
        if bias is not None:
            scores += bias[first : first + m]
        if mask is not None:
            here = mask[:, first : first + m]
            torch.where(here if here.dtype == torch.bool else here != 0, scores, nothing, out=scores)
        if seen is not None:
            _strike(scores, seen - first)
        yield first, scores


def _products(queries: Tensor, rows: Tensor, out: Tensor) -> None:
    if rows.dtype == torch.float32:
        torch.mm(queries, rows.T, out=out)
    elif rows.is_cuda:
        out.copy_(torch.mm(queries, rows.T, out_dtype=torch.float32))
    else:
        torch.mm(queries.float(), rows.float().T, out=out)


def _strike(scores: Tensor, columns: Tensor) -> None:
    """-inf in the columns (b, M) of each lane; columns outside the block are of other blocks."""
    here = (columns >= 0) & (columns < scores.shape[1])
    penalty = torch.zeros_like(columns, dtype=scores.dtype).masked_fill_(here, -math.inf)
    scores.scatter_add_(1, columns.clamp(0, scores.shape[1] - 1), penalty)


def _by_numpy(like: Tensor) -> bool:
    return like.device.type == "cpu" and torch.get_num_threads() <= _FEW_THREADS


def _joined(keys: Keys | None, scores: Tensor, first: int, k: int) -> Keys:
    """The k best so far, rising, of `keys` and a block of scores (b, m) of the rows from `first` on.

    Only what may be among them is sorted: in the first block, what reaches the k-th highest of 2 k maxima over columns
    that no two of them share; later what reaches the k-th best so far.
    """
    array, (b, m) = scores.numpy(), scores.shape
    floor = np.full((b, 1), _LEAST)
    if keys is not None:
        floor = np.maximum(floor, unsorted(torch.from_numpy(keys[:, :1] >> 32)).numpy())
    elif m >= 4 * k:
        maxima = array[:, : m - m % (2 * k)].reshape(b, -1, 2 * k).max(1)
        floor = np.maximum(floor, np.partition(maxima, k, axis=1)[:, k, None])
    places = np.flatnonzero(~(array < floor))  # NaN too
    begins = np.searchsorted(places, np.arange(b + 1) * m)
    counts = np.diff(begins)
    lanes = np.repeat(np.arange(b), counts)
    held = 0 if keys is None else keys.shape[1]
    joined = np.full((b, max(held + counts.max(initial=0), k)), _NOTHING, np.int64)
    if keys is not None:
        joined[:, :held] = keys
    ranks = sortable(torch.from_numpy(array.reshape(-1)[places])).numpy() << 32
    joined[lanes, held + np.arange(len(places)) - begins[lanes]] = ranks + (_ROWS - first - (places - lanes * m))
    joined.sort(axis=1)
    return joined[:, -k:]


def _of_keys(keys: Keys, n: int) -> Best:
    """What the keys stand for, the best first."""
    best = torch.from_numpy(keys[:, ::-1].copy())
    return Best((_ROWS - (best & _ROWS)).masked_fill(best == _NOTHING, n), unsorted(best >> 32))


def _top(scores: Tensor, k: int) -> Found:
    """The k highest values (b, k) and their columns, which of equal ones is open. Sorts k chunks instead of all."""
    b, m = scores.shape
    chunks = m // _CHUNK
    if chunks < 4 * k:
        found = scores.topk(k, dim=1)
        return found.values, found.indices
    whole = scores[:, : chunks * _CHUNK].reshape(b, chunks, _CHUNK)
    best = whole.amax(2).topk(k, dim=1).indices  # (b, k)
    inside = whole.gather(1, best.unsqueeze(2).expand(b, k, _CHUNK)).flatten(1)
    places = (best.unsqueeze(2) * _CHUNK + torch.arange(_CHUNK, device=scores.device)).flatten(1)
    rest = torch.arange(chunks * _CHUNK, m, device=scores.device)
    values = torch.cat([inside, scores[:, chunks * _CHUNK :]], dim=1)
    columns = torch.cat([places, rest.expand(b, -1)], dim=1)
    found = values.topk(k, dim=1)
    return found.values, columns.gather(1, found.indices)


def _merged(running: Found | None, found: Found, k: int) -> Found:
    """The k highest of what was found so far and of another block."""
    if running is None:
        return found
    values, rows = (torch.cat(both, dim=1) for both in zip(running, found, strict=True))
    values, order = values.topk(min(k, values.shape[1]), dim=1)
    return values, rows.gather(1, order)


def _in_order(values: Tensor, rows: Tensor, k: int, n: int) -> tuple[Best, Tensor]:
    """The k highest of k + 1, equal ones by row; and where (b,) another row is as good as the last of them."""
    order = torch.sort(rows, dim=1).indices
    values, rows = values.gather(1, order), rows.gather(1, order)
    order = torch.sort(values, dim=1, descending=True, stable=True).indices
    values, rows = values.gather(1, order), rows.gather(1, order)
    last = values[:, k - 1]
    doubtful = torch.zeros_like(last, dtype=torch.bool) if k == n else (values[:, k] == last) & (last > -math.inf)
    return Best(rows[:, :k].masked_fill(values[:, :k] == -math.inf, n), values[:, :k]), doubtful


def _settle(best: Best, doubtful: Tensor, blocks: Callable[[], Iterator[tuple[int, Tensor]]], n: int) -> Best:
    """The best of the lanes in doubt looked for once more by keys that no two rows share.

    Torch breaks ties as it likes, and keys of twice the width cost several times as much to sort: few lanes need them.
    """
    lanes = doubtful.nonzero()[:, 0]
    if not len(lanes):
        return best
    k = best.rows.shape[1]
    running: Found | None = None
    for first, scores in blocks():
        rows = torch.arange(first, first + scores.shape[1], device=scores.device)
        keys, columns = (sortable(scores[lanes]) * (n + 1) + (n - rows)).topk(min(k, len(rows)), dim=1)
        running = _merged(running, (keys, columns + first), k)
    assert running is not None
    values = unsorted(running[0].div(n + 1, rounding_mode="floor"))
    rows = running[1].masked_fill(values == -math.inf, n)
    return Best(best.rows.index_copy(0, lanes, rows), best.scores.index_copy(0, lanes, values))


def sortable(scores: Tensor) -> Tensor:
    """float32 -> int64 in the same order, within 32 bits."""
    return _flipped((scores + 0.0).view(torch.int32)).to(torch.int64)


def unsorted(keys: Tensor) -> Tensor:
    """Undo `sortable`; -0 comes back as 0."""
    return _flipped(keys.to(torch.int32)).view(torch.float32)


def _flipped(bits: Tensor) -> Tensor:
    """Bits of floats as whole numbers in the same order, and back."""
    return bits ^ (bits >> 31 & 0x7FFFFFFF)
