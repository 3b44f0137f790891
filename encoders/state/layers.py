"""The learned layers of a state encoder, shared by the loop, which reads tables, and by fitting, which makes them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.state.behavior import BehaviorEncoder
from recloop.encoders.state.config import EncoderState, StateEncoderConfig

_STRONGEST = 4.0
"""Largest logit of a pattern: none looks more than e^8 times as hard at one item as at another."""
_SILENT = ("profile.weight", "relation_gate.weight", "pattern_input.weight")
"""What says nothing before it is fitted."""

CHUNK = 64
"""Places summed by one matrix product: a sequence costs O(length), and not its square."""


class StateLayers(nn.Module):
    """What a `StateEncoder` learns, without the tables of the items.

    Args:
        signal_bounds: lowest and highest value of each of the S signals.
        profile_dim: p, length of the users' profile; 0 without.
        relations: names of the R relations.
        entity_dim: e, length of an entity's vector.
        config: sizes and parts.
        seed: of the starting weights; no global generator is touched.
        behavior: reads whole histories as text, or None.

    Raises:
        EncoderError: where the parts do not fit each other.
    """

    signal_low: Tensor
    signal_high: Tensor

    def __init__(
        self,
        signal_bounds: Sequence[tuple[float, float]],
        profile_dim: int,
        relations: Sequence[str],
        entity_dim: int,
        config: StateEncoderConfig,
        seed: int,
        behavior: BehaviorEncoder | None,
    ) -> None:
        super().__init__()
        self.config, self.dim, self.profile_dim = config, config.dim, profile_dim
        self.signal_bounds = tuple((float(low), float(high)) for low, high in signal_bounds)
        self.relations, self.behavior = tuple(relations), behavior
        if not self.signal_bounds or any(not low < high for low, high in self.signal_bounds):
            raise EncoderError(f"signal_bounds are {self.signal_bounds}; give (low, high) with low < high a signal")
        if behavior is not None and not config.fusion:
            raise EncoderError("histories read as text are a token of the fusion; leave fusion on, or behavior out")
        low, high = torch.tensor(self.signal_bounds, dtype=torch.float32).reshape(-1, 2).unbind(1)
        self.register_buffer("signal_low", low)
        self.register_buffer("signal_high", high)
        self._build(entity_dim)
        self._initialise(torch.Generator().manual_seed(seed))

    def blank(self, profile: Tensor) -> EncoderState:
        """Users of whom only the profile (B, p) is known."""
        b, c, r = len(profile), self.config, len(self.relations)
        hidden = torch.tanh(self.profile(profile)) if self.profile is not None else profile.new_zeros(b, c.hidden)
        zero = hidden.new_zeros
        return EncoderState(
            hidden,
            zero(b, r, c.key_dim),
            zero(b, r, c.value_dim),
            zero(b, r),
            zero(b),
            zero(b, c.pooled, c.dim),
            zero(b, c.pooled),
            zero(b, c.hidden) if c.sequence == "lstm" else None,
            zero(b, c.key_dim + c.value_dim) if self.behavior is not None else None,
        )

    @property
    def recurrent(self) -> bool:
        """Whether the order of the steps counts."""
        return self.config.sequence != "mean"

    def step_input(self, vectors: Tensor, signals: Tensor, held: Tensor) -> Tensor:
        """What T steps of up to K consumed items add, (B, T, d).

        Args:
            vectors: float32 (B, T, K, d) rows of `out_items`.
            signals: float32 (B, T, K, S) as logged.
            held: bool (B, T, K): which places hold an item.
        """
        mask = held.unsqueeze(-1).to(vectors.dtype)
        size = mask.sum(2).clamp_min(1)
        summed: Tensor = ((vectors + self.signal(self.scaled(signals))) * mask).sum(2)
        return summed / size.sqrt()

    def cell_input(self, steps: Tensor, patterns: Tensor, mass: Tensor) -> Tensor:
        """What the recurrent cell reads: a step (..., d) and the patterns (..., M, d) with it."""
        if self.pattern_input is None:
            return steps
        read: Tensor = self.pattern_input(mean_of(patterns, mass).flatten(-2))
        return steps + read

    def memory(self, state: EncoderState) -> Tensor | tuple[Tensor, Tensor]:
        """A state of the recurrent cell as torch's layers take it."""
        hidden = state.hidden.unsqueeze(0).contiguous()
        return hidden if state.cell is None else (hidden, state.cell.unsqueeze(0).contiguous())

    def looks(self, vectors: Tensor) -> Tensor:
        """How hard each pattern looks at items: rows of `out_items` (..., d) -> (..., M), positive."""
        if self.pattern_query is None:
            return vectors.new_ones(*vectors.shape[:-1], self.config.pooled)
        logits = F.normalize(vectors, dim=-1) @ self.pattern_query.T
        return torch.exp(_STRONGEST * torch.tanh(logits / _STRONGEST))

    def scaled(self, signals: Tensor) -> Tensor:
        """Signals (..., S) as logged -> in [-1, 1]; not given (0 outside the bounds) -> 0."""
        low, high = self.signal_low, self.signal_high
        scaled = 2 * (signals.clamp(low, high) - low) / (high - low) - 1
        missing = (signals == 0) & ((low > 0) | (high < 0))
        return scaled.masked_fill(missing, 0.0)

    def gate(self, signals: Tensor) -> Tensor:
        """How much a consumption counts in the sums: (..., S) -> (...), in (0, 1)."""
        return torch.sigmoid(self.relation_gate(self.scaled(signals))).squeeze(-1)

    def future(self, state: EncoderState) -> Tensor:
        """V_future, (..., dh), of a state with any leading dimensions."""
        if self.pool is None:
            return state.hidden
        return torch.tanh(self.pool(mean_of(state.patterns, state.mass).flatten(-2)) + state.hidden)

    def read(self, state: EncoderState) -> tuple[Tensor, Tensor]:
        """A state with any leading dimensions as vectors (..., d), and the weights of the relations (..., R)."""
        future = self.future(state)
        present = state.presence > 0
        if self.fusion is None:
            even = present.to(future.dtype)
            return torch.tanh(self.head(future)), even / even.sum(-1, keepdim=True).clamp_min(1)
        keys, values = mean_of(state.keys, state.presence), mean_of(state.values, state.presence)
        tokens = present
        if state.behavior is not None:
            told, width = state.behavior.unsqueeze(-2), self.config.key_dim
            key, value = told[..., :width], told[..., width:]
            keys, values = torch.cat([keys, key], dim=-2), torch.cat([values, value], dim=-2)
            tokens = torch.cat([present, (state.behavior != 0).any(-1, keepdim=True)], dim=-1)
        fused, weights = self.fusion(future, keys, values, tokens)
        graph = weights[..., : len(self.relations)]
        return torch.tanh(self.head(fused)), graph / graph.sum(-1, keepdim=True).clamp_min(1e-9)

    def _build(self, entity_dim: int) -> None:
        """The layers, weights not yet set: torch's initialisation would draw from the global generator."""
        c, s, r = self.config, len(self.signal_bounds), len(self.relations)

        def linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
            return nn.Linear(inputs, outputs, bias=bias, device="meta").to_empty(device="cpu")

        self.signal = linear(s, c.dim)
        self.relation_gate = linear(s, 1)
        self.profile = linear(self.profile_dim, c.hidden, bias=False) if self.profile_dim else None
        self.pattern_query = nn.Parameter(torch.empty(c.patterns, c.dim)) if c.patterns else None
        self.pattern_input = linear(c.patterns * c.dim, c.dim) if c.patterns and self.recurrent else None
        self.pool = None if self.recurrent else linear(c.pooled * c.dim, c.hidden)
        if self.recurrent:
            cell = nn.LSTM if c.sequence == "lstm" else nn.GRU
            self.sequence = cell(c.dim, c.hidden, batch_first=True, device="meta").to_empty(device="cpu")
        if r:
            self.key_projection = linear(entity_dim, c.key_dim, bias=False)
            self.value_projection = linear(entity_dim, c.value_dim, bias=False)
        tokens = r + (self.behavior is not None)
        self.fusion = Fusion(c.hidden, tokens, c.key_dim, c.value_dim, c.heads) if c.fusion else None
        if self.behavior is not None:
            self.behavior_token = linear(self.behavior.dim, c.key_dim + c.value_dim, bias=False)
        self.head = linear(c.hidden, c.dim)

    def _initialise(self, generator: torch.Generator) -> None:
        """Uniform weights by fan-in, zero biases; zero for what must do nothing before it is fitted."""
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if name == "fusion.norm.weight":
                    weight.fill_(1.0)
                elif weight.dim() < 2 or name in _SILENT:
                    weight.zero_()
                elif weight.numel():
                    bound = 1 / math.sqrt(weight.shape[1])
                    weight.copy_((torch.rand(weight.shape, generator=generator) * 2 - 1) * bound)
            if self.config.sequence == "lstm":  # it remembers before it learns to forget (Jozefowicz et al. 2015)
                forget = slice(self.config.hidden, 2 * self.config.hidden)
                self.get_parameter("sequence.bias_ih_l0")[forget] = 1.0


def mean_of(sums: Tensor, mass: Tensor) -> Tensor:
    """Decayed sums (..., G, w) by what was summed (..., G)."""
    return sums / mass.clamp_min(1e-6).unsqueeze(-1)


class Fusion(nn.Module):
    """V_fused = Transformer(V_future, E, R): one query attends to a fixed handful of tokens.

    A pre-norm transformer block (Vaswani et al. 2017; Xiong et al. 2020) whose only query is V_future. Differences:
    tokens do not attend to each other, so that their keys and values are sums over tables of the items and a step
    costs the same after ten items as after a thousand; a token nobody has is masked, and where there is none the
    block is a feed-forward layer. The weights start untouched memory: `StateEncoder` draws them.

    Args:
        width: dh, length of V_future and of the fused vector.
        tokens: R, how many there are.
        key_dim, value_dim: dk and dv of a token, each a multiple of `heads`.
        heads: attention heads.
    """

    def __init__(self, width: int, tokens: int, key_dim: int, value_dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = _linear(width, key_dim)
        self.token_key = nn.Parameter(torch.empty(tokens, key_dim))
        self.token_value = nn.Parameter(torch.empty(tokens, value_dim))
        self.attended = _linear(value_dim, width)
        self.norm = nn.LayerNorm(width)
        self.wide = _linear(width, 2 * width)
        self.narrow = _linear(2 * width, width)

    def forward(self, query: Tensor, keys: Tensor, values: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """The fused vectors and what was attended to.

        Args:
            query: float32 (..., dh) V_future.
            keys, values: float32 (..., R, dk), (..., R, dv), without the tokens' own part.
            present: bool (..., R).

        Returns:
            (..., dh), and the weights (..., R), averaged over heads, summing to 1, or to 0 where no token is present.
        """
        h = self.heads
        asked = _by_head(self.query(query).unsqueeze(-2), h)  # (..., h, 1, dk/h)
        found = _by_head(keys + self.token_key, h)  # (..., h, R, dk/h)
        logits = (asked * found).sum(-1) / math.sqrt(found.shape[-1])  # (..., h, R)
        there = present.unsqueeze(-2)
        weights = torch.softmax(logits.masked_fill(~there, -1e9), dim=-1) * there
        told = _by_head(values + self.token_value, h)
        context = (weights.unsqueeze(-1) * told).sum(-2).flatten(-2)  # (..., dv)
        fused = query + self.attended(context)
        fused = fused + self.narrow(F.gelu(self.wide(self.norm(fused))))
        return fused, weights.mean(-2)


def _by_head(x: Tensor, heads: int) -> Tensor:
    """Tokens (..., R, w) as each head sees them: (..., heads, R, w / heads)."""
    return x.view(*x.shape[:-1], heads, x.shape[-1] // heads).transpose(-3, -2)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    """A layer whose weights are not yet set: torch's initialisation would draw from the global generator."""
    return nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")


def running_sums(values: Tensor, decay: Tensor) -> Tensor:
    """s_t = decay * s_{t-1} + values_t, with gradients.

    Args:
        values: float32 (B, T, G, w), of G sums side by side.
        decay: float32 (G,) what is left of each after one more place, in (0, 1].

    >>> running_sums(torch.ones(1, 3, 1, 1), torch.tensor([0.5])).flatten().tolist()
    [1.0, 1.5, 1.75]
    """
    place = torch.arange(min(CHUNK, values.shape[1]), device=values.device)
    age = place[:, None] - place[None, :]  # (c, c)
    left = decay[:, None, None] ** age.clamp_min(0)
    matrix = torch.where(age >= 0, left, 0.0)  # (G, c, c)
    fade = decay[:, None] ** (place + 1)  # (G, c)
    carry, parts = None, []
    for part in torch.split(values, CHUNK, dim=1):
        c = part.shape[1]
        total = torch.einsum("gts,bsgw->btgw", matrix[:, :c, :c], part)
        if carry is not None:
            total = total + fade[:, :c].T[None, :, :, None] * carry
        parts.append(total)
        carry = total[:, -1:]
    return torch.cat(parts, dim=1) if parts else values
