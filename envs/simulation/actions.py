"""Actions of any mode as slates of item rows. Skins and saved policies use the same codecs."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.encoders.base.plug_ins import returned
from recloop.encoders.state.encoder import StateEncoder
from recloop.envs.interaction.checked_slate import WHOLE_NUMBERS
from recloop.envs.interaction.observation import Observation, ObservationSpec
from recloop.envs.simulation.retrieval import best_rows

ActionMode = Literal["slate", "item", "candidates", "proto", "ask"]

_HEARD = 2.0
"""Weight of what users say among what is retrieved, against the mean length of the encoder's item vectors."""
DEFAULT_CANDIDATES = 200
"""C, where nobody says otherwise; never more than the catalogue."""


Search = Callable[[Tensor, int, Observation], Tensor]
"""Points (B, d), k and an observation -> the k admissible items nearest to each, int64 (B, k)."""


class Retriever(ABC):
    """Narrows the catalogue to C items worth considering. Belongs to the policy and is saved with it.

    Attributes:
        size: C.
        needs: the observation's keys that it reads, besides `action_mask` or `seen` where there is one.
    """

    size: int
    needs: tuple[str, ...] = ()

    @abstractmethod
    def candidates(self, observation: Observation) -> Tensor:
        """int64 (B, C) item rows without repeats, the best guess first.

        Keeps to `observation["action_mask"]` (B, N), or else, in a large catalogue, to `observation["seen"]` (B, M),
        the items not to be shown again, and `observation["allowed"]` (B, N), where they are there; N fills up where
        fewer items are admissible.
        """


class EncoderRetriever(Retriever):
    """The C items that the state encoder expects next.

    Args:
        state_encoder: scores every item from `observation["state"]`.
        size: C; default the smaller of `DEFAULT_CANDIDATES` and the catalogue.
        wishes: float32 (N+1, u) what `observation["instruction"]` is held against, for who hears what users say: how
            well an item answers it is then added to what the encoder expects.
    """

    needs: tuple[str, ...] = ("state",)

    def __init__(self, state_encoder: StateEncoder, size: int | None = None, wishes: Tensor | None = None) -> None:
        self.state_encoder, self._heard = state_encoder, None
        if wishes is not None:
            self.needs = ("state", "instruction")
            spread = float(state_encoder.out_items[:-1].norm(dim=1).mean())  # a state has entries up to 1
            self._heard = wishes[:-1] * _HEARD * spread
        self.size = candidates_size(size, state_encoder.catalogue_size)

    @torch.no_grad()
    def candidates(self, observation: Observation) -> Tensor:
        """See `Retriever`."""
        encoder, query, table = self.state_encoder, observation["state"], self.state_encoder.out_items[:-1]
        if self._heard is not None:
            query = torch.cat([query, observation["instruction"]], dim=1)
            table = torch.cat([table, self._heard.to(table.device)], dim=1)
        return nearest_items(query, table, self.size, observation, encoder.popularity)


class ActionCodec(ABC):
    """Turns the actions of one mode into slates.

    Args:
        spec: sizes of observations.

    Attributes:
        mode: its name.
        one_at_a_time: True where an action picks one item and K actions fill a slate.
        space: the action space of one lane.
        masked: True where `decode` keeps to `action_mask`, or in a large catalogue to `seen`, where there is one.
        needs: the observation's keys that `decode` reads besides.
        shows: keys that this mode adds to the observation that an agent sees.
    """

    mode: ClassVar[ActionMode]
    one_at_a_time: ClassVar[bool] = False
    masked: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()
    shows: ClassVar[tuple[str, ...]] = ()
    space: gym.Space[Any]

    def __init__(self, spec: ObservationSpec) -> None:
        self.slate_size = spec.slate_size
        self.empty = spec.catalogue_size

    def decode(self, action: Tensor, observation: Observation) -> Tensor:
        """Actions of B lanes -> int64 (B, K) item rows, or (B, 1) where one item is picked at a time.

        Args:
            action: (B, *space.shape), of the space's kind (integers or floats).
            observation: of the same lanes, with the keys in `needs`.

        Raises:
            RecloopError: for an action outside the space; the message names the value and the limit.
        """
        shape = self.space.shape or ()
        if tuple(action.shape[1:]) != shape or action.dim() != 1 + len(shape):
            raise RecloopError(
                f"action has shape {tuple(action.shape)}; mode '{self.mode}' takes (lanes, "
                f"{', '.join(map(str, shape))}) per step, one row a lane"
            )
        self._check_values(action)
        return self._decode(action, observation)

    def masks(self, observation: Observation) -> Tensor:
        """Which choices are admissible, bool (B, sum of the space's choices), as MaskablePPO reads them."""
        raise RecloopError(f"action mode '{self.mode}' is continuous and has no mask; choose another mode")

    @abstractmethod
    def _check_values(self, action: Tensor) -> None:
        """Raise `RecloopError` for values outside the space."""

    @abstractmethod
    def _decode(self, action: Tensor, observation: Observation) -> Tensor:
        """`decode` of a checked action."""


def action_tensor(action: Any) -> Tensor:
    """An action as a skin is given it, a tensor, an array or numbers; `RecloopError` for what holds no numbers."""
    try:
        return action if isinstance(action, Tensor) else torch.as_tensor(np.asarray(action))
    except (TypeError, ValueError, RuntimeError):
        raise RecloopError(f"the action is {returned(action)}; give numbers of the action space") from None


class _Choices(ActionCodec):
    """Modes whose action is one choice, or one a place, among `choices` numbers."""

    choices: int

    def _check_values(self, action: Tensor) -> None:
        if action.dtype not in WHOLE_NUMBERS:
            raise RecloopError(f"action has dtype {action.dtype}; mode '{self.mode}' takes whole numbers, int64")
        low, high = (int(bound) for bound in action.aminmax())
        if low < 0 or high >= self.choices:
            value = low if low < 0 else high
            raise RecloopError(f"action holds {value}; mode '{self.mode}' takes 0 to {self.choices - 1}")


class SlateCodec(_Choices):
    """K item rows at once: MultiDiscrete([N] * K). Places are chosen apart and may repeat an item."""

    mode = "slate"

    def __init__(self, spec: ObservationSpec) -> None:
        super().__init__(spec)
        self.choices = spec.catalogue_size
        self.space = gym.spaces.MultiDiscrete([self.choices] * self.slate_size)

    def masks(self, observation: Observation) -> Tensor:
        """(B, K * N): the same admissible items at every place."""
        return _some(_admissible(observation, self.empty)).repeat(1, self.slate_size)

    def _decode(self, action: Tensor, observation: Observation) -> Tensor:
        return action.to(torch.int64)


class ItemCodec(_Choices):
    """One item row a step: Discrete(N), slates of one place."""

    mode = "item"

    def __init__(self, spec: ObservationSpec) -> None:
        if spec.slate_size != 1:
            raise RecloopError(
                f"action mode 'item' shows one item a step and slate_size is {spec.slate_size}; "
                "set slate_size=1 or choose another mode"
            )
        super().__init__(spec)
        self.choices = spec.catalogue_size
        self.space = gym.spaces.Discrete(self.choices)

    def masks(self, observation: Observation) -> Tensor:
        """(B, N)."""
        return _some(_admissible(observation, self.empty))

    def _decode(self, action: Tensor, observation: Observation) -> Tensor:
        return action.to(torch.int64).unsqueeze(1)


class CandidatesCodec(_Choices):
    """K positions in `observation["candidates"]`: MultiDiscrete([C] * K). Positions may repeat; some may be empty."""

    mode: ClassVar[ActionMode] = "candidates"
    needs: ClassVar[tuple[str, ...]] = ("candidates",)
    shows: ClassVar[tuple[str, ...]] = ("candidates",)

    def __init__(self, spec: ObservationSpec, size: int) -> None:
        super().__init__(spec)
        if size < self.slate_size:
            raise RecloopError(
                f"candidates={size} is smaller than slate_size={self.slate_size}; raise candidates or lower slate_size"
            )
        self.choices = size
        self.space = gym.spaces.MultiDiscrete([size] * self.slate_size)

    def masks(self, observation: Observation) -> Tensor:
        """(B, K * C): the same filled positions at every place."""
        return _some(observation["candidates"] < self.empty).repeat(1, self.slate_size)

    def _decode(self, action: Tensor, observation: Observation) -> Tensor:
        return observation["candidates"].gather(1, action.to(torch.int64))


class AskCodec(CandidatesCodec):
    """A question, or K positions in `observation["candidates"]`: MultiDiscrete([2] + [C] * K).

    Where the first number is 1 the slate stays empty, whatever the others are: users who speak hear a question in it
    (`recloop.envs.users.speaking`), others an empty slate.
    """

    mode = "ask"

    def __init__(self, spec: ObservationSpec, size: int) -> None:
        super().__init__(spec, size)
        self.space = gym.spaces.MultiDiscrete([2] + [size] * self.slate_size)

    def masks(self, observation: Observation) -> Tensor:
        """(B, 2 + K * C): to ask is always possible."""
        places = super().masks(observation)
        return torch.cat([torch.ones_like(places[:, :1]).expand(-1, 2), places], dim=1)

    def _decode(self, action: Tensor, observation: Observation) -> Tensor:
        slate = super()._decode(action[:, 1:], observation)
        return slate.masked_fill(action[:, :1] == 1, self.empty)

    def _check_values(self, action: Tensor) -> None:
        super()._check_values(action)
        most = int(action[:, 0].max())
        if most > 1:
            raise RecloopError(f"action begins with {most}; mode 'ask' takes 0 to recommend or 1 to ask")


class PickCodec(CandidatesCodec):
    """A slate in K masked micro-steps, one position of `observation["candidates"]` each: Discrete(C).

    `observation["picked"]` (B, K) tells what the slate holds so far; `decode` gives the item picked now, (B, 1).
    """

    one_at_a_time = True
    needs = ("candidates", "picked")
    shows = ("candidates", "picked")

    def __init__(self, spec: ObservationSpec, size: int) -> None:
        super().__init__(spec, size)
        self.space = gym.spaces.Discrete(size)

    def masks(self, observation: Observation) -> Tensor:
        """(B, C): filled positions whose item is not picked yet; all where none is left."""
        candidates = observation["candidates"]
        picked = (candidates.unsqueeze(2) == observation["picked"].unsqueeze(1)).any(2)  # (B, C)
        return _some((candidates < self.empty) & ~picked)

    def _decode(self, action: Tensor, observation: Observation) -> Tensor:
        return observation["candidates"].gather(1, action.to(torch.int64).unsqueeze(1))


class ProtoCodec(ActionCodec):
    """A point in item space: Box(-1, 1, (d,)). Shows the K admissible items with the largest inner product.

    Never repeats an item. The Wolpertinger policy (Dulac-Arnold et al. 2015) without its critic: the nearest items
    are the slate.

    Args:
        item_vectors: float32 (N+1, d), on the device of the actions; row N is zero. Environments hand in
            `recloop.envs.interaction.item_space`, whose last coordinate is popularity.
        search: finds the items instead of the exact search, shaped as `Search`.
    """

    mode = "proto"
    masked = True

    def __init__(self, spec: ObservationSpec, item_vectors: Tensor, search: Search | None = None) -> None:
        super().__init__(spec)
        self.item_vectors = item_vectors
        self.search = search
        self.space = gym.spaces.Box(-1.0, 1.0, (item_vectors.shape[1],), np.float32)

    def _check_values(self, action: Tensor) -> None:
        if not action.is_floating_point() and action.dtype not in WHOLE_NUMBERS:
            raise RecloopError(f"action has dtype {action.dtype}; mode 'proto' takes float32")
        broken = ~torch.isfinite(action)
        if bool(broken.any()):
            raise RecloopError(
                f"action holds {float(action[broken][0])}; mode 'proto' takes finite numbers, -1 to 1 each"
            )

    def _decode(self, action: Tensor, observation: Observation) -> Tensor:
        if self.search is not None:
            return self.search(action, self.slate_size, observation)
        return nearest_items(action, self.item_vectors[:-1], self.slate_size, observation)


def candidates_size(size: int | None, catalogue_size: int) -> int:
    """C, the default where nobody says otherwise; `RecloopError` where it does not fit the catalogue."""
    size = min(DEFAULT_CANDIDATES, catalogue_size) if size is None else size
    if not 1 <= size <= catalogue_size:
        raise RecloopError(
            f"candidates={size} does not fit a catalogue of {catalogue_size} items; choose 1 to {catalogue_size}"
        )
    return size


def nearest_items(
    queries: Tensor, table: Tensor, k: int, observation: Observation, bias: Tensor | None = None
) -> Tensor:
    """The k admissible items with the highest `queries @ table.T + bias`: int64 (B, k), N where fewer are admissible.

    Keeps to `observation["action_mask"]` (B, N), or to `observation["seen"]` (B, M) and `observation["allowed"]`
    (B, N), where they are there; equal scores by row. See `recloop.envs.simulation.retrieval.best_rows`.
    """
    mask = observation.get("action_mask")
    if mask is None:
        seen, allowed = observation.get("seen"), observation.get("allowed")
        return best_rows(queries, table, k, bias=bias, mask=allowed, seen=seen).rows
    return best_rows(queries, table, k, bias=bias, mask=mask).rows


def make_codec(
    mode: str,
    spec: ObservationSpec,
    item_vectors: Tensor,
    *,
    candidates: int = 0,
    one_at_a_time: bool = False,
    search: Search | None = None,
) -> ActionCodec:
    """The codec of an action mode.

    Args:
        mode: `slate`, `item`, `candidates`, `proto` or `ask`.
        spec: sizes of observations.
        item_vectors: float32 (N+1, d), row N zero.
        candidates: C, for modes `candidates` and `ask`.
        one_at_a_time: fill a slate in K micro-steps; mode `candidates` only.
        search: finds the items of mode `proto`; default the exact search.

    Raises:
        RecloopError: for an unknown mode, or sizes that do not fit it.
    """
    makers: dict[str, Callable[[], ActionCodec]] = {
        "slate": lambda: SlateCodec(spec),
        "item": lambda: ItemCodec(spec),
        "candidates": lambda: (PickCodec if one_at_a_time else CandidatesCodec)(spec, candidates),
        "proto": lambda: ProtoCodec(spec, item_vectors, search),
        "ask": lambda: AskCodec(spec, candidates),
    }
    if mode not in makers:
        raise RecloopError(unknown_name("action mode", mode, makers))
    if one_at_a_time and mode != "candidates":
        raise RecloopError(f"one_at_a_time works with action mode 'candidates', not '{mode}'")
    return makers[mode]()


def _admissible(observation: Observation, items: int) -> Tensor:
    """bool (B, N): which items may be shown."""
    mask = observation.get("action_mask")
    if mask is not None:
        return mask != 0
    some = next(iter(observation.values()))
    return torch.ones(len(some), items, dtype=torch.bool, device=some.device)


def _some(mask: Tensor) -> Tensor:
    """The mask, and every choice where none is left: a distribution over nothing does not exist."""
    return mask | ~mask.any(1, keepdim=True)
