"""Decision Transformer: slates that the log shows where as much was still to be earned as is asked for."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from recloop.agents.isolation import isolated_randomness
from recloop.agents.learners.logged.batches import LoggedBatch
from recloop.agents.learners.logged.cloning import place_log_probs
from recloop.agents.learners.logged.learner import LoggedConfig, LoggedLearner
from recloop.agents.learners.returns import PlaceRewards
from recloop.agents.networks.features import ANCHORS, FeatureInputs, ItemTables, NetworkConfig
from recloop.agents.networks.heads import admissible, make_actor
from recloop.agents.networks.policy import retrieved
from recloop.agents.policy import Carry, Policy
from recloop.agents.serving import Serving
from recloop.agents.slates import action_mask, sample
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.observation import Observation, ObservationSpec
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Response
from recloop.envs.simulation.actions import EncoderRetriever


@dataclass(frozen=True)
class DecisionTransformerConfig(LoggedConfig):
    """Decision Transformer; see `DecisionTransformer`.

    Args:
        batch_size: windows a gradient step.
        window: T, steps that the transformer reads: this one and those before it in the episode.
        blocks: of the transformer.
        heads: of its attention; a divisor of the hidden units.
        target: return of an episode that is asked for; None for the quantile of the log's.
        quantile: of the log's episodes, in [0, 1], whose return is asked for.
    """

    batch_size: int = 64
    window: int = 5
    blocks: int = 1
    heads: int = 2
    target: float | None = None
    quantile: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("window", "blocks", "heads"):
            if getattr(self, name) < 1:
                raise PolicyError(f"{name}={getattr(self, name)}; it must be at least 1")
        if self.network.hidden % self.heads:
            raise PolicyError(f"heads={self.heads} is no divisor of network.hidden={self.network.hidden}")
        if not 0 <= self.quantile <= 1:
            raise PolicyError(f"quantile={self.quantile}; it must lie in [0, 1]")


class ReturnTransformer(nn.Module):
    """Tokens of return, state and slate, step by step, through a causal transformer; scores from those of the state.

    Args:
        tables: the items.
        spec: of observations.
        network: sizes of the features and the head.
        window: T.
        blocks, heads: of the transformer.
    """

    def __init__(
        self, tables: ItemTables, spec: ObservationSpec, network: NetworkConfig, window: int, blocks: int, heads: int
    ) -> None:
        super().__init__()
        self.actor, self.window, hidden = make_actor("candidates", tables, spec, network), window, network.hidden
        self.of_return, self.of_slate = nn.Linear(1, hidden), nn.Linear(tables.dim, hidden)
        self.of_place = nn.Embedding(window, hidden)
        block = nn.TransformerEncoderLayer(hidden, heads, 4 * hidden, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, blocks, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, returns: Tensor, states: Tensor, slates: Tensor) -> Tensor:
        """What was known at each step, (B, T, h).

        Args:
            returns: float32 (B, T) that were still to come, in units of their spread.
            states: float32 (B, T, h) trunks of the features.
            slates: float32 (B, T, d) mean vectors of what was shown.
        """
        b, t, hidden = states.shape
        tokens = torch.stack([self.of_return(returns.unsqueeze(2)), states, self.of_slate(slates)], dim=2)
        tokens = (tokens + self.of_place.weight[:t].unsqueeze(1)).view(b, 3 * t, hidden)
        later = torch.ones(3 * t, 3 * t, dtype=torch.bool, device=states.device).triu(1)
        known: Tensor = self.norm(self.blocks(tokens, mask=later))
        return known[:, 1::3]

    def scores(self, known: Tensor, inputs: FeatureInputs, observation: Observation) -> Tensor:
        """Scores (B, C) of the candidates by what is known (B, h)."""
        scores: Tensor = self.actor.head(torch.cat([inputs.anchors.flatten(1), known], dim=1), observation)
        return scores


@dataclass(frozen=True)
class EpisodeSoFar:
    """What a Decision Transformer keeps of B lanes between two steps.

    Args:
        returns, states, slates: as `ReturnTransformer` reads them, T places; those not reached yet hold anything.
        steps: int64 (B,) taken in this episode.
        asked: float32 (B,) what was still to be earned at the last step.
    """

    returns: Tensor
    states: Tensor
    slates: Tensor
    steps: Tensor
    asked: Tensor


class DecisionTransformerPolicy(Policy):
    """Asks for a return at the start of an episode, and step by step for what of it is not earned yet.

    What was earned is what the items of the last slate earned by their own signals (`PlaceRewards`).

    Args:
        serving: what it takes to act outside a simulator.
        networks: trained.
        network: sizes of their features and head.
        candidates: C.
        window, blocks, heads: of the transformer.
        target: the return of an episode that is asked for.
        scale: the spread of returns in the log.
        training: its config, for the record.
    """

    name = "decision-transformer"
    kind = "decision-transformer"
    ranks = True

    def __init__(
        self,
        serving: Serving,
        networks: ReturnTransformer,
        network: NetworkConfig,
        *,
        candidates: int,
        window: int,
        blocks: int,
        heads: int,
        target: float,
        scale: float,
        training: Mapping[str, Any] | None = None,
    ) -> None:
        self.serving: Serving = serving
        self.networks, self.network, self.training = networks.eval(), network, dict(training or {})
        self.window, self.blocks, self.heads, self.target, self.scale = window, blocks, heads, target, scale
        self.retriever = EncoderRetriever(serving.world.state_encoder, candidates)
        self._earned, self._on = PlaceRewards(serving.world), torch.device("cpu")

    def most_ranked(self, k: int) -> int:
        """No more than it retrieves."""
        return min(super().most_ranked(k), self.retriever.size)

    @torch.no_grad()
    def act(self, observation: Observation, carry: Carry, k: int, draw: Draw) -> tuple[Tensor, Carry]:
        """The most likely slate."""
        device, empty = observation["state"].device, self.serving.catalogue_size
        self.networks.to(device)
        observation = {**observation, "action_mask": action_mask(observation, empty)}
        candidates = retrieved(self.retriever, observation, k, self.name)
        observation["candidates"] = candidates
        features = self.networks.actor.features
        inputs = features.inputs(observation)
        so_far = self._gone_on(carry, observation, inputs, features.trunk_of(inputs))
        known = self.networks(so_far.returns / self.scale, so_far.states, so_far.slates)
        place = (so_far.steps - 1).clamp(max=self.window - 1)
        known = known[torch.arange(len(known), device=device), place]
        mask = admissible(observation, empty)
        positions = sample(self.networks.scores(known, inputs, observation), mask, k)
        return candidates.gather(1, positions).masked_fill(~mask.gather(1, positions), empty), so_far

    def _gone_on(self, carry: Carry, seen: Observation, inputs: FeatureInputs, states: Tensor) -> EpisodeSoFar:
        """What is kept, with this step in it; an episode begins where none of its time is used."""
        b, device = len(states), states.device
        last = inputs.anchors[:, ANCHORS.index("last shown")]
        if carry is None:
            fresh = torch.ones(b, dtype=torch.bool, device=device)
            rows, steps = states.new_zeros(b, self.window), torch.zeros(b, dtype=torch.int64, device=device)
            before = EpisodeSoFar(rows, _places(states, rows), _places(last, rows), steps, rows[:, 0])
        else:
            before, fresh = carry, seen["context"][:, 0] == 0
        asked = torch.where(fresh, self.target, before.asked - self._earned_last(seen))
        steps = before.steps.masked_fill(fresh, 0)
        full = (steps >= self.window).unsqueeze(1)
        place = steps.clamp(max=self.window - 1).unsqueeze(1)
        at = torch.arange(self.window, device=device)
        now, was = at == place, (at == place - 1).unsqueeze(2)

        def moved(values: Tensor) -> Tensor:
            return torch.where(full if values.dim() == 2 else full.unsqueeze(2), values.roll(-1, dims=1), values)

        return EpisodeSoFar(
            returns=torch.where(now, asked.unsqueeze(1), moved(before.returns)),
            states=torch.where(now.unsqueeze(2), states.unsqueeze(1), moved(before.states)),
            slates=torch.where(was, last.unsqueeze(1), moved(before.slates)),
            steps=steps + 1,
            asked=asked,
        )

    def _earned_last(self, seen: Observation) -> Tensor:
        """What the last slate earned, (B,)."""
        slate, answers = seen["shown"][:, -1].long(), seen["answers"][:, -1]
        if self._on != slate.device:
            self._earned, self._on = PlaceRewards(self.serving.world, slate.device), slate.device
        nobody = torch.zeros(len(slate), dtype=torch.bool, device=slate.device)
        return self._earned(slate, Response(answers, torch.ones_like(answers, dtype=torch.bool), nobody)).sum(1)

    def config(self) -> dict[str, Any]:
        """See `restore`."""
        names = ("window", "blocks", "heads", "target", "scale", "training")
        told = {name: getattr(self, name) for name in names}
        return {"network": asdict(self.network), "candidates": self.retriever.size, **told}

    def tensors(self) -> dict[str, Tensor]:
        """The weights."""
        return dict(self.networks.state_dict())

    @classmethod
    def restore(cls, serving: Serving, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Undo `config` and `tensors`; item tables come from `serving`."""
        facts, world = dict(config), serving.world
        network = NetworkConfig(**facts.pop("network"))
        sizes = {name: facts[name] for name in ("window", "blocks", "heads")}
        tables = ItemTables.of(world.state_encoder, world.catalogue.popularity)
        with isolated_randomness(0):
            networks = ReturnTransformer(tables, world.spec(), network, **sizes)
        networks.load_state_dict(dict(tensors))
        return cls(serving, networks, network, **facts)


class DecisionTransformer(LoggedLearner):
    """Decision Transformer (Chen et al., NeurIPS 2021), on slates.

    A causal transformer reads a window of logged steps as tokens of return-to-go, state and slate, and learns the
    likelihood of every slate given what came before it and the return that was still to come; asked for a high return,
    it shows what the log shows before high ones. Differences: the state is the trunk of `LoopFeatures`, a slate is a
    Plackett-Luce of candidates and a token of its mean vector; places are learned for windows, not for time steps, and
    windows do not overlap while it learns; a return-to-go reaches over the world's time limit.
    """

    name: ClassVar[str] = "decision-transformer"
    paper: ClassVar[str] = "Chen et al. 2021"
    config_class: ClassVar[type[LoggedConfig]] = DecisionTransformerConfig
    policy_class: ClassVar[type[Policy]] = DecisionTransformerPolicy
    config: DecisionTransformerConfig
    networks: ReturnTransformer

    def __init__(self, *made_with: Any) -> None:
        super().__init__(*made_with)
        config, steps = self.config, self.steps
        sizes = (config.window, config.blocks, config.heads)
        self.networks = ReturnTransformer(self.tables, self.world.spec(), config.network, *sizes)
        self.returns = steps.returns()
        self.scale = float(self.returns[steps.rows].std(correction=0).clamp_min(1e-6))
        self.learned = torch.zeros(len(self.returns), dtype=torch.bool, device=steps.device)
        self.learned[steps.rows] = True

    @property
    def rows(self) -> Tensor:
        """The last steps of windows, counted from the end of each episode."""
        rows = self.steps.rows
        return rows[(self.steps.last[rows] - rows) % self.config.window == 0]

    def loss(self, batch: LoggedBatch) -> dict[str, Tensor]:
        """Minus the mean log-likelihood of a logged place, in nats, in the windows that end with the batch's steps."""
        steps, t = self.steps, self.config.window
        length = self.steps.number[batch.rows].clamp(max=t - 1) + 1
        at = torch.arange(t, device=batch.rows.device)
        held = at < length.unsqueeze(1)  # (M, T), empty places last: none is read from before them
        rows = ((batch.rows - length + 1).unsqueeze(1) + at * held).flatten()
        whole = steps.batch(rows)
        features = self.networks.actor.features
        inputs = features.inputs(whole.observation)
        nothing = whole.own.new_zeros(len(rows), 1, *whole.items.shape[1:], len(steps.spec.signals))
        slates = features.means(whole.items.unsqueeze(1), nothing)[0]
        shape = (len(batch.rows), t, -1)
        known = self.networks(
            (self.returns[rows] / self.scale).view(shape[:2]), features.trunk_of(inputs).view(shape), slates.view(shape)
        )
        logs = place_log_probs(self.networks.scores(known.flatten(0, 1), inputs, whole.observation), whole)
        there = (held.flatten() & self.learned[rows]).unsqueeze(1)
        return {"train/loss": -(logs * there).sum() / (whole.counted & there).sum().clamp_min(1)}

    def policy(self) -> DecisionTransformerPolicy:
        """Of the weights as they are now."""
        config, steps = self.config, self.steps
        opening = self.returns[(steps.number == 0) & self.learned]
        opening = opening if len(opening) else self.returns[steps.rows]
        target = float(opening.quantile(config.quantile)) if config.target is None else config.target
        return DecisionTransformerPolicy(
            Serving.of(self.world),
            self.networks,
            config.network,
            candidates=steps.retriever.size,
            window=config.window,
            blocks=config.blocks,
            heads=config.heads,
            target=target,
            scale=self.scale,
            training={"agent": self.name, "seed": self.seed, **config.as_dict()},
        )


def _places(one: Tensor, rows: Tensor) -> Tensor:
    """Zeros (B, T, ...) for values (B, ...) of each of the places (B, T)."""
    return one.new_zeros(*rows.shape, one.shape[1])
