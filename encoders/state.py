"""The incremental encoder the loop calls: what a user consumed, as one vector, at O(1) cost a step.

A recurrent state over consumed items and their signals, and attention over the relations of the knowledge
graph that those items carry. All that depends on items alone is a table computed once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.encoders.errors import EncoderError
from recloop.encoders.fit_report import FitReport
from recloop.encoders.lanes import Lanes
from recloop.encoders.storage import read_json, read_tensors, replacing_folder, write_json, write_tensors

FORMAT = 1
_CELL = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


@dataclass(frozen=True)
class StateEncoderConfig:
    """Sizes of a `StateEncoder`, and how the relation sums forget.

    Args:
        dim: d, length of item vectors and of the user's vector.
        hidden: dh, units of the recurrent state.
        key_dim: dk, length of a relation token's key.
        value_dim: dv, length of a relation token's value.
        decay: what is left of the relation sums after one more step, in (0, 1].
    """

    dim: int = 64
    hidden: int = 128
    key_dim: int = 16
    value_dim: int = 16
    decay: float = 0.95

    def __post_init__(self) -> None:
        for name in ("dim", "hidden", "key_dim", "value_dim"):
            if getattr(self, name) < 1:
                raise EncoderError(f"{name}={getattr(self, name)} of the state encoder must be at least 1")
        if not 0 < self.decay <= 1:
            raise EncoderError(f"decay={self.decay} of the state encoder must lie in (0, 1]")


@dataclass(frozen=True)
class EncoderState(Lanes):
    """What the encoder keeps of B users.

    Args:
        hidden: float32 (B, dh) the recurrent state.
        keys: float32 (B, R, dk) decayed sum of the relation keys of what was consumed.
        values: float32 (B, R, dv) likewise of the values.
        presence: float32 (B, R) likewise of who has a relation at all: what the two sums are divided by.
        count: float32 (B,) items consumed so far.
    """

    hidden: Tensor
    keys: Tensor
    values: Tensor
    presence: Tensor
    count: Tensor


class StateEncoder(nn.Module):
    """Users' behaviour as vectors, one step at a time.

    | table | shape | what |
    |---|---|---|
    | `item_vectors` | (N+1, d) | rows of length 1; row N is zero |
    | `out_items` | (N+1, d) | item vectors as the next-item scores read them; row N is zero |
    | `popularity` | (N,) | an item's share in the scores that no user explains |
    | `relation_keys`, `relation_values` | (N+1, R, dk), (N+1, R, dv) | an item's mean neighbour by relation |
    | `relation_presence` | (N+1, R) | 1 where the item has the relation |

    Once a step the input is the order-free sum over what was consumed, divided by the root of its size, of
    item vectors and projected signals. The recurrent cell is a GRU (Cho et al. 2014), as in GRU4Rec (Hidasi et
    al. 2016). Differences: several items a step; inputs and scores share `out_items`; attention over relation
    tokens, each the decayed mean of what the user consumed, is added by a residual layer. A world without a
    knowledge graph has R = 0. Signals are scaled by `signal_bounds` to [-1, 1]; a signal of 0 outside its bounds
    was not given and reads as the middle. The weights are frozen unless somebody calls `requires_grad_`.

    Args:
        item_vectors: float32 (N, d) rows, scaled here to length 1.
        signal_bounds: lowest and highest value of each of the S signals.
        profile_dim: p, length of the users' profile; 0 without.
        relations: names of the R relations.
        relation_tables: float32 (N+1, R, e) mean neighbour of an item under each relation; row N is zero.
        config: sizes.
        seed: of the starting weights; no global generator is touched.

    Raises:
        EncoderError: where the shapes do not fit each other.
    """

    item_vectors: Tensor
    out_items: Tensor
    popularity: Tensor
    relation_keys: Tensor
    relation_values: Tensor
    relation_presence: Tensor
    signal_low: Tensor
    signal_high: Tensor

    def __init__(
        self,
        item_vectors: Tensor,
        signal_bounds: Sequence[tuple[float, float]],
        profile_dim: int = 0,
        relations: Sequence[str] = (),
        relation_tables: Tensor | None = None,
        config: StateEncoderConfig | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.config = config = config or StateEncoderConfig(dim=item_vectors.shape[-1])
        self.catalogue_size, self.dim = item_vectors.shape[0], config.dim
        self.signal_bounds = tuple((float(low), float(high)) for low, high in signal_bounds)
        self.profile_dim, self.relations = profile_dim, tuple(relations)
        self.report: FitReport | None = None
        self._check(item_vectors, relation_tables)
        n, r = self.catalogue_size, len(self.relations)
        entity_dim = relation_tables.shape[2] if relation_tables is not None else 0
        self.register_buffer("item_vectors", torch.zeros(n + 1, config.dim))
        self.register_buffer("out_items", torch.zeros(n + 1, config.dim))
        self.register_buffer("popularity", torch.zeros(n))
        self.register_buffer("relation_keys", torch.zeros(n + 1, r, config.key_dim))
        self.register_buffer("relation_values", torch.zeros(n + 1, r, config.value_dim))
        self.register_buffer("relation_presence", torch.zeros(n + 1, r))
        low, high = torch.tensor(self.signal_bounds, dtype=torch.float32).reshape(-1, 2).unbind(1)
        self.register_buffer("signal_low", low)
        self.register_buffer("signal_high", high)
        self._build(entity_dim)
        self._initialise(torch.Generator().manual_seed(seed))
        self.set_items(item_vectors, relation_tables)
        self.requires_grad_(False).eval()

    # ---- the loop

    def start(self, profile: Tensor, history: Tensor, feedback: Tensor) -> EncoderState:
        """The state of users at the start of an episode, warm from their history; once an episode.

        Args:
            profile: float32 (B, p).
            history: int64 (B, H) item rows, newest last; places holding N are empty and change nothing.
            feedback: float32 (B, H, S) signals as logged.

        Equals `advance` item by item to float rounding.
        """
        state = self.blank(profile)
        if history.shape[1] == 0:
            return state
        held = history < self.catalogue_size
        order = torch.sort(held.long(), dim=1, descending=True, stable=True).indices  # items first, in order
        items = history.gather(1, order)
        signals = feedback.gather(1, order.unsqueeze(-1).expand_as(feedback))
        count = held.sum(1)  # (B,)
        steps = self._steps(items.unsqueeze(2), signals.unsqueeze(2))  # (B, H, d)
        # cuDNN would run the recurrence in TF32 and part from `advance`.
        with torch.backends.cudnn.flags(enabled=False):
            outputs, _ = self.gru(steps, state.hidden.unsqueeze(0))  # (B, H, dh)
        newest = (count - 1).clamp_min(0).view(-1, 1, 1).expand(-1, 1, outputs.shape[2])
        hidden = torch.where(count.view(-1, 1) > 0, outputs.gather(1, newest).squeeze(1), state.hidden)
        age = count.view(-1, 1) - 1 - torch.arange(items.shape[1], device=items.device)  # (B, H), 0 the newest
        weight = self.gate(signals) * self.config.decay ** age.clamp_min(0).to(signals.dtype)
        keys, values, presence = self._relation_sums(items, weight)
        return EncoderState(hidden, keys, values, presence, count.to(hidden.dtype))

    def advance(self, state: EncoderState, items: Tensor, signals: Tensor) -> EncoderState:
        """The state after one step.

        Args:
            items: int64 (B, K) what was consumed, in any order; places holding N are not consumed.
            signals: float32 (B, K, S).

        A lane that consumed nothing keeps its state.
        """
        held = items < self.catalogue_size
        used = held.any(1)
        step = self._steps(items.unsqueeze(1), signals.unsqueeze(1)).squeeze(1)  # (B, d)
        hidden = torch.gru_cell(step, state.hidden, *(getattr(self.gru, name) for name in _CELL))
        keys, values, presence = self._relation_sums(items, self.gate(signals))
        decay = self.config.decay
        after = EncoderState(
            hidden,
            state.keys * decay + keys,
            state.values * decay + values,
            state.presence * decay + presence,
            state.count + held.sum(1),
        )
        return state.where(used, after)

    def vector(self, state: EncoderState) -> Tensor:
        """The users as vectors in [-1, 1], (B, d)."""
        return self.read(state.hidden, state.keys, state.values, state.presence)[0]

    def scores(self, vector: Tensor) -> Tensor:
        """Next-item logits of every item: (B, d) -> (B, N)."""
        return vector @ self.out_items[:-1].T + self.popularity

    def relation_weights(self, state: EncoderState) -> Tensor:
        """What attention reads in the knowledge graph: (B, R), summing to 1, or 0 where nothing is known."""
        return self.read(state.hidden, state.keys, state.values, state.presence)[1]

    def blank(self, profile: Tensor) -> EncoderState:
        """Users of whom only the profile (B, p) is known."""
        b, c, r = len(profile), self.config, len(self.relations)
        hidden = torch.tanh(self.profile(profile)) if self.profile is not None else profile.new_zeros(b, c.hidden)
        zero = hidden.new_zeros
        return EncoderState(hidden, zero(b, r, c.key_dim), zero(b, r, c.value_dim), zero(b, r), zero(b))

    # ---- the parts that fitting shares

    def step_input(self, vectors: Tensor, signals: Tensor, held: Tensor) -> Tensor:
        """Input of the recurrent cell, (B, T, d), for T steps of up to K consumed items.

        Args:
            vectors: float32 (B, T, K, d) rows of `out_items`.
            signals: float32 (B, T, K, S) as logged.
            held: bool (B, T, K): which places hold an item.
        """
        mask = held.unsqueeze(-1).to(vectors.dtype)
        size = mask.sum(2).clamp_min(1)
        summed: Tensor = ((vectors + self.signal(self.scaled(signals))) * mask).sum(2)
        return summed / size.sqrt()

    def scaled(self, signals: Tensor) -> Tensor:
        """Signals (..., S) as logged -> in [-1, 1]; not given (0 outside the bounds) -> 0."""
        low, high = self.signal_low, self.signal_high
        scaled = 2 * (signals.clamp(low, high) - low) / (high - low) - 1
        missing = (signals == 0) & ((low > 0) | (high < 0))
        return scaled.masked_fill(missing, 0.0)

    def gate(self, signals: Tensor) -> Tensor:
        """How much a consumption counts in the relation sums: (..., S) -> (...), in (0, 1)."""
        return torch.sigmoid(self.relation_gate(self.scaled(signals))).squeeze(-1)

    def read(self, hidden: Tensor, keys: Tensor, values: Tensor, presence: Tensor) -> tuple[Tensor, Tensor]:
        """One query attends to the R relation tokens: the vectors (..., d) and the weights (..., R)."""
        present = presence > 0
        mass = presence.clamp_min(1e-6).unsqueeze(-1)
        tokens = keys / mass + self.relation_key  # (..., R, dk)
        query = self.query(hidden).unsqueeze(-1)  # (..., dk, 1)
        logits = (tokens @ query).squeeze(-1) / math.sqrt(self.config.key_dim)
        weights = torch.softmax(logits.masked_fill(~present, -1e9), dim=-1) * present
        context = (weights.unsqueeze(-1) * (values / mass + self.relation_value)).sum(-2)  # (..., dv)
        mixed = self.mix_out(F.gelu(self.mix_in(torch.cat([hidden, context], dim=-1))))
        return torch.tanh(self.head(hidden) + mixed), weights

    def set_items(
        self,
        item_vectors: Tensor,
        relation_tables: Tensor | None,
        out_items: Tensor | None = None,
        popularity: Tensor | None = None,
    ) -> None:
        """Freeze what depends on items alone into the tables.

        Args:
            item_vectors: float32 (N, d).
            relation_tables: float32 (N+1, R, e), projected here; None without a graph.
            out_items: float32 (N, d); default the item vectors.
            popularity: float32 (N,); default zero.
        """
        with torch.no_grad():
            self.item_vectors[:-1] = F.normalize(item_vectors, dim=-1)
            self.out_items[:-1] = self.item_vectors[:-1] if out_items is None else out_items
            if popularity is not None:
                self.popularity.copy_(popularity)
            if relation_tables is not None:
                self.relation_keys.copy_(self.key_projection(relation_tables))
                self.relation_values.copy_(self.value_projection(relation_tables))
                self.relation_presence.copy_((relation_tables != 0).any(-1))

    # ---- on disk

    def save(self, folder: Path | str) -> None:
        """Write `encoder.json` and `encoder.safetensors`; the folder is replaced whole."""
        facts = {
            "format": FORMAT,
            "config": asdict(self.config),
            "catalogue_size": self.catalogue_size,
            "signal_bounds": self.signal_bounds,
            "profile_dim": self.profile_dim,
            "relations": self.relations,
            "entity_dim": self.key_projection.in_features if self.relations else 0,
            "report": asdict(self.report) if self.report else None,
        }
        with replacing_folder(Path(folder)) as part:
            write_tensors(part / "encoder.safetensors", self.state_dict())
            write_json(part / "encoder.json", facts)

    @classmethod
    def load(cls, folder: Path | str) -> StateEncoder:
        """Read what `save` wrote, onto the CPU.

        Raises:
            EncoderError: for a newer format, or tensors that do not fit.
        """
        folder = Path(folder)
        facts = read_json(folder / "encoder.json")
        if facts.get("format") != FORMAT:
            raise EncoderError(
                f"{folder / 'encoder.json'} has format {facts.get('format')}; this version reads {FORMAT}, "
                "build the folder anew or update recloop"
            )
        config = StateEncoderConfig(**facts["config"])
        n, r = facts["catalogue_size"], len(facts["relations"])
        encoder = cls(
            torch.zeros(n, config.dim),
            facts["signal_bounds"],
            facts["profile_dim"],
            facts["relations"],
            torch.zeros(n + 1, r, facts["entity_dim"]) if r else None,
            config,
        )
        try:
            encoder.load_state_dict(read_tensors(folder / "encoder.safetensors"))
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise EncoderError(f"{folder / 'encoder.safetensors'} does not fit: {reason}") from None
        encoder.report = FitReport.from_facts(facts["report"]) if facts["report"] else None
        return encoder

    # ---- guts

    def _check(self, item_vectors: Tensor, tables: Tensor | None) -> None:
        """The shapes fit each other, or `EncoderError`."""
        n, r = self.catalogue_size, len(self.relations)
        if item_vectors.dim() != 2 or n < 1 or item_vectors.shape[1] != self.config.dim:
            raise EncoderError(
                f"item_vectors are {tuple(item_vectors.shape)}; a state encoder of dim={self.config.dim} "
                f"needs (N, {self.config.dim}) with N >= 1"
            )
        if (tables is None) != (r == 0) or (tables is not None and tables.shape[:2] != (n + 1, r)):
            shape = None if tables is None else tuple(tables.shape)
            raise EncoderError(f"relation_tables are {shape}; {r} relations of {n} items need ({n + 1}, {r}, e)")
        if not self.signal_bounds or any(not low < high for low, high in self.signal_bounds):
            raise EncoderError(f"signal_bounds are {self.signal_bounds}; give (low, high) with low < high a signal")

    def _build(self, entity_dim: int) -> None:
        """The layers, weights not yet set: torch's initialisation would draw from the global generator."""
        c, s, r = self.config, len(self.signal_bounds), len(self.relations)

        def linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
            return nn.Linear(inputs, outputs, bias=bias, device="meta").to_empty(device="cpu")

        self.gru = nn.GRU(c.dim, c.hidden, batch_first=True, device="meta").to_empty(device="cpu")
        self.signal = linear(s, c.dim)
        self.relation_gate = linear(s, 1)
        self.profile = linear(self.profile_dim, c.hidden, bias=False) if self.profile_dim else None
        self.query = linear(c.hidden, c.key_dim)
        if r:
            self.key_projection = linear(entity_dim, c.key_dim, bias=False)
            self.value_projection = linear(entity_dim, c.value_dim, bias=False)
        self.relation_key = nn.Parameter(torch.empty(r, c.key_dim))
        self.relation_value = nn.Parameter(torch.empty(r, c.value_dim))
        self.mix_in = linear(c.hidden + c.value_dim, c.hidden)
        self.mix_out = linear(c.hidden, c.dim)
        self.head = linear(c.hidden, c.dim)

    def _initialise(self, generator: torch.Generator) -> None:
        """Uniform weights by fan-in, zero biases; zero for what must do nothing before it is fitted."""
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if weight.dim() < 2 or name in ("profile.weight", "relation_gate.weight"):
                    weight.zero_()
                elif weight.numel():
                    bound = 1 / math.sqrt(weight.shape[1])
                    weight.copy_((torch.rand(weight.shape, generator=generator) * 2 - 1) * bound)

    def _steps(self, items: Tensor, signals: Tensor) -> Tensor:
        """`step_input` of item rows (B, T, K) by the frozen table."""
        return self.step_input(F.embedding(items, self.out_items), signals, items < self.catalogue_size)

    def _relation_sums(self, items: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sums of the relation tables over items (B, K) by weight (B, K): (B, R, dk), (B, R, dv), (B, R)."""
        b, r, c = len(items), len(self.relations), self.config
        if r == 0:
            zero = weight.new_zeros
            return zero(b, 0, c.key_dim), zero(b, 0, c.value_dim), zero(b, 0)
        weight = weight * (items < self.catalogue_size)

        def total(table: Tensor) -> Tensor:
            return F.embedding_bag(items, table.flatten(1), per_sample_weights=weight, mode="sum")

        keys, values = total(self.relation_keys), total(self.relation_values)
        return keys.view(b, r, c.key_dim), values.view(b, r, c.value_dim), total(self.relation_presence)
