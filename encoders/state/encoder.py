"""The incremental encoder the loop calls: what a user consumed, as one vector, at O(1) cost a step.

    V         what was consumed: item vectors computed once, or a language model's reading of the whole history
    P         patterns: attention-pooled V                                       (`patterns`)
    V_future  what comes next: an LSTM or GRU over V and P                       (`sequence`)
    V_fused   V_future attending to entities E under relations R of the graph    (`fusion`)

All that depends on items alone is a table computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from recloop.encoders.base.artifact import Artifact, check_shapes, fitted_module
from recloop.encoders.base.errors import EncoderError
from recloop.encoders.state.behavior import BehaviorEncoder, load_behavior
from recloop.encoders.state.config import EncoderFitReport, EncoderState, StateEncoderConfig
from recloop.encoders.state.layers import StateLayers, running_sums

CELL = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


class StateEncoder(StateLayers, Artifact):
    """Users' behaviour as vectors, one step at a time.

    | table | shape | what |
    |---|---|---|
    | `item_vectors` | (N+1, d) | rows of length 1; row N is zero |
    | `out_items` | (N+1, d) | item vectors as the next-item scores read them; row N is zero |
    | `popularity` | (N,) | an item's share in the scores that no user explains |
    | `pattern_weights` | (N+1, M) | how hard each pattern looks at an item; row N is zero |
    | `relation_rows` | (N+1, R, dk+dv+1) | an item's mean neighbour by relation: key, value, 1 where it has one |

    Once a step the input is the order-free sum over what was consumed, divided by the root of its size, of item
    vectors and projected signals. **Patterns** are means of the consumed items' vectors, each weighted by a learned
    query's softmax attention (Bahdanau et al. 2015; the queries are the model's and not the user's, as the inducing
    points of Lee et al. 2019), so that numerator and denominator are running sums. **V_future** is a GRU (Cho et al.
    2014), as in GRU4Rec (Hidasi et al. 2016), or an LSTM (Hochreiter and Schmidhuber 1997) over the step's input and
    the patterns. **Fusion** is one transformer block whose query is V_future and whose tokens are relations, each the
    decayed mean of what the user consumed under it. Differences: several items a step; inputs and scores share
    `out_items`; all sums forget at one rate. A world without a knowledge graph has R = 0. Signals are scaled by
    `signal_bounds` to [-1, 1]; a signal of 0 outside its bounds was not given and reads as the middle. The weights
    are frozen unless somebody calls `requires_grad_`; who trains them runs `start` or `trajectory` over `history`.

    Args:
        item_vectors: float32 (N, d) rows, scaled here to length 1.
        signal_bounds: lowest and highest value of each of the S signals.
        profile_dim: p, length of the users' profile; 0 without.
        relations: names of the R relations.
        relation_tables: float32 (N+1, R, e) mean neighbour of an item under each relation; row N is zero.
        config: sizes and parts.
        seed: of the starting weights; no global generator is touched.
        behavior: reads whole histories as text, once at the start and again on `refresh`: one more token of the
            fusion. None: items alone are read.

    Raises:
        EncoderError: where the shapes do not fit each other.
    """

    artifact_file = "encoder"
    artifact_format = 3

    item_vectors: Tensor
    out_items: Tensor
    popularity: Tensor
    pattern_weights: Tensor
    relation_rows: Tensor

    def __init__(
        self,
        item_vectors: Tensor,
        signal_bounds: Sequence[tuple[float, float]],
        profile_dim: int = 0,
        relations: Sequence[str] = (),
        relation_tables: Tensor | None = None,
        config: StateEncoderConfig | None = None,
        seed: int = 0,
        behavior: BehaviorEncoder | None = None,
    ) -> None:
        config = config or StateEncoderConfig(dim=item_vectors.shape[-1])
        entity_dim = relation_tables.shape[2] if relation_tables is not None else 0
        super().__init__(signal_bounds, profile_dim, relations, entity_dim, config, seed, behavior)
        self.catalogue_size = n = item_vectors.shape[0]
        self.report: EncoderFitReport | None = None
        self._check(item_vectors, relation_tables)
        r = len(self.relations)
        self.register_buffer("item_vectors", torch.zeros(n + 1, config.dim))
        self.register_buffer("out_items", torch.zeros(n + 1, config.dim))
        self.register_buffer("popularity", torch.zeros(n))
        self.register_buffer("pattern_weights", torch.zeros(n + 1, config.pooled))
        self.register_buffer("relation_rows", torch.zeros(n + 1, r, config.key_dim + config.value_dim + 1))
        self.set_items(item_vectors, relation_tables)
        self.requires_grad_(False).eval()

    # ---- the loop

    def start(self, profile: Tensor, history: Tensor, feedback: Tensor, *, keep: bool = False) -> EncoderState:
        """The state of users at the start of an episode, warm from their history; once an episode.

        Args:
            profile: float32 (B, p).
            history: int64 (B, H) item rows, newest last; places holding N are empty and change nothing.
            feedback: float32 (B, H, S) signals as logged.
            keep: logged histories, which come again: what a language model makes of them is kept on disk.

        Equals `advance` item by item to float rounding, but for what a language model read, which is of now.
        """
        blank = self.blank(profile)
        items, signals, count = self._in_order(history, feedback)
        if history.shape[1] == 0:
            return blank
        weight = self.gate(signals) * (items < self.catalogue_size)  # (B, H)
        patterns, mass = self._running_patterns(items, weight)
        newest = (count - 1).clamp_min(0)
        lane = torch.arange(len(items), device=items.device)
        state = replace(blank, patterns=patterns[lane, newest], mass=mass[lane, newest], count=count.to(weight.dtype))
        if self.recurrent:
            steps = self.cell_input(self._steps(items.unsqueeze(2), signals.unsqueeze(2)), patterns, mass)
            hidden, cell = self._recur(steps, blank, count)
            state = replace(state, hidden=hidden, cell=cell)
        age = count.view(-1, 1) - 1 - torch.arange(items.shape[1], device=items.device)  # (B, H), 0 the newest
        keys, values, presence = self._relation_sums(items, weight * self.config.decay ** age.clamp_min(0))
        warm = replace(state, keys=keys, values=values, presence=presence)
        warm = blank.where(count > 0, warm)
        return self.refresh(warm, history, feedback, keep=keep)

    def advance(self, state: EncoderState, items: Tensor, signals: Tensor) -> EncoderState:
        """The state after one step.

        Args:
            items: int64 (B, K) what was consumed, in any order; places holding N are not consumed.
            signals: float32 (B, K, S).

        A lane that consumed nothing keeps its state.
        """
        held = (items < self.catalogue_size).to(signals.dtype)  # (B, K)
        weight = self.gate(signals) * held
        looks = F.embedding(items, self.pattern_weights) * weight.unsqueeze(-1)  # (B, K, M)
        step, pooled = self._summed(items, signals, held, looks)
        keys, values, presence = self._relation_sums(items, weight)
        decay = self.config.decay
        after = replace(
            state,
            patterns=state.patterns * decay + pooled,
            mass=state.mass * decay + looks.sum(1),
            keys=state.keys * decay + keys,
            values=state.values * decay + values,
            presence=state.presence * decay + presence,
            count=state.count + held.sum(1),
        )
        if self.recurrent:
            step = self.cell_input(step, after.patterns, after.mass)
            weights = [getattr(self.sequence, name) for name in CELL]
            if state.cell is None:
                after = replace(after, hidden=torch.gru_cell(step, state.hidden, *weights))
            else:
                hidden, cell = torch.lstm_cell(step, (state.hidden, state.cell), *weights)
                after = replace(after, hidden=hidden, cell=cell)
        return state.where(held.sum(1) > 0, after)

    def refresh(self, state: EncoderState, history: Tensor, feedback: Tensor, *, keep: bool = False) -> EncoderState:
        """The state after the language model read the histories anew: (B, H) and (B, H, S), `keep` as in `start`.

        What costs: call it at the start of a session and every `behavior.refresh` steps, on the lanes that are due.
        Without a language model the state stays as it is.
        """
        if self.behavior is None:
            return state
        read = self.behavior.encode(history.cpu(), feedback.cpu(), keep).to(state.hidden)
        return replace(state, behavior=self.behavior_token(read))

    def vector(self, state: EncoderState) -> Tensor:
        """The users as vectors in [-1, 1], (B, d)."""
        return self.read(state)[0]

    def scores(self, vector: Tensor) -> Tensor:
        """Next-item logits of every item: (B, d) -> (B, N)."""
        return vector @ self.out_items[:-1].T + self.popularity

    def relation_weights(self, state: EncoderState) -> Tensor:
        """What attention reads in the knowledge graph: (B, R), summing to 1, or 0 where nothing is known."""
        return self.read(state)[1]

    def trajectory(self, profile: Tensor, history: Tensor, feedback: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors after each item of the histories, for learning from sequences; shapes as in `start`.

        Returns:
            float32 (B, H, d), the t-th after the t-th item, and bool (B, H), where there is one: items come first.
            What a language model made of the whole history is left out.
        """
        blank = self.blank(profile)
        items, signals, _ = self._in_order(history, feedback)
        weight = self.gate(signals) * (items < self.catalogue_size)
        patterns, mass = self._running_patterns(items, weight)
        b, h = items.shape
        decay = weight.new_full((len(self.relations),), self.config.decay)

        rows = F.embedding(items, self.relation_rows.flatten(1)).view(b, h, *self.relation_rows.shape[1:])
        keys, values, presence = self._parted(running_sums(rows * weight.view(b, h, 1, 1), decay))
        hidden = blank.hidden.unsqueeze(1).expand(-1, h, -1)
        if self.recurrent and h:
            steps = self.cell_input(self._steps(items.unsqueeze(2), signals.unsqueeze(2)), patterns, mass)
            hidden = self.sequence(steps, self.memory(blank))[0]
        state = EncoderState(
            hidden,
            keys,
            values,
            presence,
            torch.arange(1, h + 1, device=items.device).to(weight.dtype),
            patterns,
            mass,
            behavior=None if blank.behavior is None else blank.behavior.unsqueeze(1).expand(-1, h, -1),
        )
        return self.read(state)[0], items < self.catalogue_size

    @torch.no_grad()
    def set_items(
        self,
        item_vectors: Tensor,
        relation_tables: Tensor | None,
        out_items: Tensor | None = None,
        popularity: Tensor | None = None,
    ) -> None:
        """Fill the tables.

        Args:
            item_vectors: float32 (N, d).
            relation_tables: float32 (N+1, R, e), projected here; None without a graph.
            out_items: float32 (N, d); default the item vectors.
            popularity: float32 (N,); default zero.
        """
        self.item_vectors[:-1] = F.normalize(item_vectors, dim=-1)
        self.out_items[:-1] = self.item_vectors[:-1] if out_items is None else out_items
        self.pattern_weights[:-1] = self.looks(self.out_items[:-1])
        if popularity is not None:
            self.popularity.copy_(popularity)
        if relation_tables is not None:
            there = (relation_tables != 0).any(-1, keepdim=True)
            parts = (self.key_projection(relation_tables), self.value_projection(relation_tables), there)
            self.relation_rows.copy_(torch.cat(parts, dim=-1))

    # ---- on disk

    def stored_facts(self) -> dict[str, Any]:
        """Config, sizes, and how the fit went."""
        return {
            "config": asdict(self.config),
            "catalogue_size": self.catalogue_size,
            "signal_bounds": self.signal_bounds,
            "profile_dim": self.profile_dim,
            "relations": self.relations,
            "entity_dim": self.key_projection.in_features if self.relations else 0,
            "report": asdict(self.report) if self.report else None,
            "behavior": self.behavior is not None,
        }

    def stored_tensors(self) -> dict[str, Tensor]:
        """Weights and tables."""
        return self.state_dict()

    def stored_children(self) -> dict[str, Any]:
        """What reads whole histories, where something does."""
        return {} if self.behavior is None else {"behavior": self.behavior}

    @classmethod
    def restored(cls, facts: dict[str, Any], tensors: dict[str, Tensor], folder: Path, **context: Any) -> StateEncoder:
        """See `Artifact`."""
        config = StateEncoderConfig(**facts["config"])
        n, r = facts["catalogue_size"], len(facts["relations"])
        check_shapes(
            tensors,
            item_vectors=(n + 1, config.dim),
            pattern_weights=(n + 1, config.pooled),
            relation_rows=(n + 1, r, config.key_dim + config.value_dim + 1),
        )
        encoder = cls(
            torch.zeros(n, config.dim),
            facts["signal_bounds"],
            facts["profile_dim"],
            facts["relations"],
            torch.zeros(n + 1, r, facts["entity_dim"]) if r else None,
            config,
            behavior=load_behavior(folder / "behavior") if facts["behavior"] else None,
        )
        fitted_module(encoder, tensors)
        encoder.report = EncoderFitReport.from_facts(facts["report"]) if facts["report"] else None
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
        if self.behavior is not None and self.behavior.catalogue_size != n:
            raise EncoderError(f"behavior knows {self.behavior.catalogue_size} items, the state encoder {n}")

    def _in_order(self, history: Tensor, feedback: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Items first, in their order, empty places last: (B, H), (B, H, S), and how many items (B,)."""
        held = history < self.catalogue_size
        order = torch.sort(held.long(), dim=1, descending=True, stable=True).indices
        return history.gather(1, order), feedback.gather(1, order.unsqueeze(-1).expand_as(feedback)), held.sum(1)

    def _steps(self, items: Tensor, signals: Tensor) -> Tensor:
        """`step_input` of item rows (B, T, K) by the frozen table."""
        return self.step_input(F.embedding(items, self.out_items), signals, items < self.catalogue_size)

    def _summed(self, items: Tensor, signals: Tensor, held: Tensor, looks: Tensor) -> tuple[Tensor, Tensor]:
        """`step_input` of one step of items (B, K), (B, d), and their rows summed by pattern, (B, M, d).

        One pass over the rows makes both, and no (B, K, d) is ever written down.
        """
        b, k = items.shape
        share = held / held.sum(1, keepdim=True).clamp_min(1).sqrt()  # (B, K)
        weights = torch.cat([share.unsqueeze(1), looks.transpose(1, 2)], dim=1)  # (B, 1+M, K)
        bags = items.unsqueeze(1).expand_as(weights).reshape(-1, k)
        sums = F.embedding_bag(bags, self.out_items, per_sample_weights=weights.reshape(-1, k), mode="sum")
        sums = sums.view(b, -1, self.dim)
        answers = (self.scaled(signals) * share.unsqueeze(-1)).sum(1) @ self.signal.weight.T  # (B, d)
        return sums[:, 0] + answers + share.sum(1, keepdim=True) * self.signal.bias, sums[:, 1:]

    def _running_patterns(self, items: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The pattern sums after each of the items (B, H) by weight (B, H): (B, H, M, d), (B, H, M)."""
        m = self.config.pooled
        decay = weight.new_full((m,), self.config.decay)
        looks = F.embedding(items, self.pattern_weights) * weight.unsqueeze(-1)  # (B, H, M)
        rows = F.embedding(items, self.out_items)  # (B, H, d)
        mass = running_sums(looks.unsqueeze(-1), decay).squeeze(-1)
        return running_sums(looks.unsqueeze(-1) * rows.unsqueeze(2), decay), mass

    def _recur(self, steps: Tensor, blank: EncoderState, count: Tensor) -> tuple[Tensor, Tensor | None]:
        """Hidden state and memory after the newest of `count` (B,) steps (B, H, d); those of `blank` where none."""
        packed = pack_padded_sequence(steps, count.clamp_min(1).cpu(), batch_first=True, enforce_sorted=False)
        # cuDNN would run the recurrence in TF32 and part from `advance`.
        with torch.backends.cudnn.flags(enabled=False):
            _, last = self.sequence(packed, self.memory(blank))
        return (last[0].squeeze(0), last[1].squeeze(0)) if isinstance(last, tuple) else (last.squeeze(0), None)

    def _relation_sums(self, items: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sums of the relation tables over items (B, K) by weight (B, K): (B, R, dk), (B, R, dv), (B, R)."""
        b, r, c = len(items), len(self.relations), self.config
        if r == 0 or self.fusion is None:
            zero = weight.new_zeros
            return zero(b, r, c.key_dim), zero(b, r, c.value_dim), zero(b, r)

        rows = self.relation_rows.flatten(1)
        sums = F.embedding_bag(items, rows, per_sample_weights=weight, mode="sum").view(
            b, *self.relation_rows.shape[1:]
        )
        return self._parted(sums)

    def _parted(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows (..., dk+dv+1) as keys (..., dk), values (..., dv) and presence (...)."""
        c = self.config
        keys, values, presence = rows.split_with_sizes([c.key_dim, c.value_dim, 1], dim=-1)
        return keys, values, presence.squeeze(-1)
