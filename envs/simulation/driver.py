"""What the three skins share: a core, the way an agent acts in it, and what the agent sees. Tensors in, tensors out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.envs.interaction.observation import (
    DEFAULT_KEYS,
    DENSE_ITEMS,
    INTERNAL_KEYS,
    OPTIONAL_KEYS,
    Observation,
    ObservationSpec,
)
from recloop.envs.interaction.transition import Transition
from recloop.envs.simulation.actions import ActionCodec, Retriever
from recloop.envs.simulation.core import Core

Observed = dict[str, npt.NDArray[Any]] | npt.NDArray[Any]
"""An observation as NumPy arrays: by key, or `state` alone."""


@dataclass(frozen=True)
class AgentStep:
    """What one action of B lanes led to.

    Args:
        observation: what the agents see next; finished lanes are in their next episode already.
        reward: float32 (B,); 0 for a micro-step that does not complete the slate.
        terminated, truncated: bool (B,); never both.
        finished: int64 (F,) lanes that ended, rising.
        final: the last observation of those lanes, leading dimension F; None where no lane ended.
        transition: the core's step; None for a micro-step that does not complete the slate.
        returns: float64 (B,) sum of the episode's rewards, this one included.
        lengths: int64 (B,) actions in the episode, this one included.
        users: int64 (B,) rows of the users who acted.
    """

    observation: Observation
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    finished: Tensor
    final: Observation | None
    transition: Transition | None
    returns: Tensor
    lengths: Tensor
    users: Tensor


class Driver:
    """Drives a core by actions of one mode and hands out what the agent is to see.

    Takes the core over: sets its observation keys.

    Args:
        core: the lanes.
        codec: how actions become slates.
        observation: `dict`, `state` or a tuple of keys; see `recloop.envs.simulation.tasks.TaskOptions`.
        retriever: makes `candidates`; needed where they are asked for.
        watched: keep what rendering needs.

    Attributes:
        flat: True where the agent sees the vector `state` and no dict.
        keys: what the agent sees.
        action_space, observation_space: of one lane.
        returns, lengths: (B,) rewards and actions of the running episodes so far.
        last: the turn just made; None at the start of an episode.
        meant: what each user wanted as that slate was shown; empty where nobody tells.
        plain: whether actions are slates as they are and nobody renders, which reads `returns`, `lengths` and `last`: a
            skin may then step the core past this driver, and tells of it by `passed`.
        waits: whether, stepped so, the next episode has begun and nobody saw it yet.
    """

    def __init__(
        self,
        core: Core,
        codec: ActionCodec,
        observation: str | Sequence[str] = "dict",
        retriever: Retriever | None = None,
        watched: bool = False,
    ) -> None:
        self.core, self.codec, self.retriever = core, codec, retriever
        self.flat = observation == "state"
        self.keys = ("state",) if self.flat else observed_keys(observation, core.spec, codec.shows)
        wanted = {*self.keys, *codec.needs}
        if "candidates" in wanted:
            if retriever is None:
                raise RecloopError("candidates are asked for and there is no retriever; pass retriever=...")
            wanted.update(retriever.needs)
        if "picked" in wanted and not codec.one_at_a_time:
            raise RecloopError("observation key 'picked' exists with one_at_a_time=True only; leave it out")
        if core.masks_items and (codec.masked or "candidates" in wanted):
            wanted.update(INTERNAL_KEYS if core.empty > DENSE_ITEMS else ("action_mask",))
        if watched:
            wanted.update(("state", "history"))
        core.keys = tuple(key for key in (*DEFAULT_KEYS, *OPTIONAL_KEYS, *INTERNAL_KEYS) if key in wanted)
        self._wanted = wanted
        size = retriever.size if retriever is not None else 0
        spaces = {key: core.spec.space(key, candidates=size) for key in self.keys}
        self.observation_space: gym.Space[Any] = spaces["state"] if self.flat else gym.spaces.Dict(spaces)
        self.action_space = codec.space
        self.last: AgentStep | None = None
        self.meant: list[str] = []
        self.returns = torch.zeros(core.batch, dtype=torch.float64, device=core.device)
        self.lengths = torch.zeros_like(core.lanes)
        self._picks: list[Tensor] = []
        self._seen: Observation | None = None
        self.waits = False
        own = {"action_mask", "candidates", "picked"} & wanted
        self.plain = not (own or codec.needs or codec.masked or watched)

    def reset(
        self,
        *,
        seed: int | None = None,
        lanes: Tensor | None = None,
        users: Tensor | None = None,
        instructions: Tensor | None = None,
    ) -> Observation:
        """Start episode 0 in every lane; see `Core.reset`."""
        self.core.reset(seed=seed, lanes=lanes, users=users, instructions=instructions)
        return self._begin()

    def restart(self, rng: np.random.Generator | None, options: dict[str, Any] | None) -> Observation:
        """Gymnasium's reset: episode 0 of a seed drawn from `rng`, or with None the next episodes.

        `options` may hold `users` and `lanes`, a whole number or one a lane, and `instruction`, a text or one a lane;
        they need an `rng`.
        """
        given = dict(options or {})
        texts = given.pop("instruction", None)
        chosen = lane_options(given, self.core.batch)
        if texts is not None:
            chosen["instructions"] = self._instructions(texts)
        if rng is None:
            return self.next_episode()
        return self.reset(seed=int(rng.integers(2**63)), **chosen)

    def _instructions(self, texts: Any) -> Tensor:
        """Instructions in words, one or one a lane, as vectors (B, u)."""
        encoder, batch = self.core.world.instruction, self.core.batch
        if encoder is None:
            raise RecloopError(
                f"reset option instruction={texts!r}: world '{self.core.world.name}' has no instruction encoder; build "
                "it with --encoder.instruction"
            )
        lines = [texts] * batch if isinstance(texts, str) else list(texts) if isinstance(texts, Sequence) else []
        if len(lines) != batch or not all(isinstance(line, str) for line in lines):
            raise RecloopError(f"reset option instruction={texts!r}; give one text or a list of {batch}, one a lane")
        distinct = list(dict.fromkeys(lines))
        vectors = encoder.encode(distinct)
        return vectors[torch.tensor([distinct.index(line) for line in lines])]

    def next_episode(self) -> Observation:
        """Break off every lane's episode and go on to its next; lanes that have just finished are there already."""
        where = torch.ones_like(self.core.lanes, dtype=torch.bool)
        if self.last is not None:
            where[self.last.finished] = False
        if not self.waits and bool(where.any()):
            self.core.next_episode(where)
        return self._begin()

    @property
    def observation(self) -> Observation:
        """What the agents see now; tensors may be shared with the core, so they are not to be changed."""
        return self._seen_by_agent(self._full)

    def step(self, action: Tensor) -> AgentStep:
        """Act in every lane: (B, *action_space.shape). A slate is shown once it is complete."""
        action = action.to(self.core.device)
        if action.shape[:1] != (self.core.batch,):
            raise RecloopError(f"action has shape {tuple(action.shape)}; give one row a lane, {self.core.batch}")
        self._picks.append(self.codec.decode(action, self._full))
        self.lengths = self.lengths + 1
        if sum(pick.shape[1] for pick in self._picks) < self.core.slate_size:
            return self._micro_step()
        slate = self._picks[0] if len(self._picks) == 1 else torch.cat(self._picks, dim=1)
        self._picks = []
        users = self.core.users
        self.meant = self.core.simulator.meant(self.core.state)
        transition = self.core.step(slate)
        self.returns = self.returns + transition.reward
        final = transition.final
        self._seen = self._completed(dict(transition.next_observation)) if final is None else None
        self.last = AgentStep(
            observation=self.observation,
            reward=transition.reward,
            terminated=transition.terminated,
            truncated=transition.truncated,
            finished=transition.finished,
            final=None if final is None else self._seen_by_agent(self._completed(final)),
            transition=transition,
            returns=self.returns,
            lengths=self.lengths,
            users=users,
        )
        if final is not None:
            going = ~(transition.terminated | transition.truncated)
            self.returns, self.lengths = self.returns * going, self.lengths * going
        return self.last

    def passed(self, over: bool) -> None:
        """The core was stepped past this driver, of one lane; `over`: its next episode has begun and nobody saw it."""
        self._seen, self.last, self._picks, self.waits = None, None, [], over

    @property
    def _full(self) -> Observation:
        """All that the core tells, with the keys that belong to the way an agent acts."""
        if self._seen is None:
            self._seen = self._completed(self.core.observe())
        return self._seen

    def action_masks(self) -> Tensor:
        """Which choices are admissible now, bool (B, choices); see `ActionCodec.masks`."""
        core, seen = self.core, self._full
        if "action_mask" not in seen and core.masks_items:
            seen = {**seen, "action_mask": core.action_mask()}
        masks = self.codec.masks(seen)
        if core.ruled is None or not self.codec.one_at_a_time:
            return masks
        open_now = masks & core.ruled.open(seen["candidates"], seen["picked"])
        return torch.where(open_now.any(1, keepdim=True), open_now, masks)

    def full_observation(self, lane: int) -> tuple[Observation, int]:
        """What the core knows to be observed of one lane, leading dimension 1, and the user's row.

        Of the step just made: where it ended the episode, of its last moment.
        """
        if self.last is not None and self.last.transition is not None:
            place = (self.last.finished == lane).nonzero()[:, 0]
            final = self.last.transition.final
            if len(place) and final is not None:
                return {key: value[place] for key, value in final.items()}, int(self.last.users[lane])
        return {key: value[lane : lane + 1] for key, value in self._full.items()}, int(self.core.users[lane])

    def _begin(self) -> Observation:
        self.last, self._picks, self.waits = None, [], False
        self.returns, self.lengths = torch.zeros_like(self.returns), torch.zeros_like(self.lengths)
        self._seen = None
        return self.observation

    def _micro_step(self) -> AgentStep:
        """A pick that leaves the slate incomplete: nothing happens in the core."""
        core = self.core
        places = sum(pick.shape[1] for pick in self._picks)
        picked = self._full["picked"].clone()
        picked[:, :places] = torch.cat(self._picks, dim=1)
        self._seen = {**self._full, "picked": picked}
        no = torch.zeros_like(core.lanes, dtype=torch.bool)
        zero = torch.zeros_like(core.lanes, dtype=torch.float32)
        self.last = AgentStep(
            self.observation, zero, no, no, core.lanes[:0], None, None, self.returns, self.lengths, core.users
        )
        return self.last

    def _completed(self, observation: Observation) -> Observation:
        """With the keys that belong to the way an agent acts."""
        if "candidates" in self._wanted and self.retriever is not None:
            observation["candidates"] = self.retriever.candidates(observation)
        if "picked" in self._wanted:
            rows = len(next(iter(observation.values())))
            shape = (rows, self.core.slate_size)
            observation["picked"] = torch.full(shape, self.core.empty, device=self.core.device)
        return observation

    def _seen_by_agent(self, observation: Observation) -> Observation:
        seen = {key: observation[key] for key in self.keys}
        if "action_mask" in seen:
            seen["action_mask"] = seen["action_mask"].view(torch.int8)
        return seen


def arrays(driver: Driver, observation: Observation, lane: int | None = None) -> Observed:
    """An observation as NumPy arrays of its own, of all its lanes or of one."""

    def convert(value: Tensor) -> npt.NDArray[Any]:
        held = value.cpu().numpy()
        return np.array(held if lane is None else held[lane])

    if driver.flat:
        return convert(observation["state"])
    return {key: convert(value) for key, value in observation.items()}


def answers(driver: Driver, transition: Transition) -> dict[str, Any]:
    """What happened at a step, as NumPy arrays with leading dimension B: the `info` of every skin.

    `slate` (B, K), `invalid` (B,), `left` (B,), and by signal name `response` (B, K) and `given` (B, K); of users who
    speak `rating` (B,) of the slate, 0 where it has none, and `meant` (B,), what they wanted.
    """
    response = transition.response
    names = [signal.name for signal in driver.core.world.signals]
    signals, given = response.signals.cpu().numpy(), response.given.cpu().numpy()
    told: dict[str, Any] = {"meant": np.array(driver.meant)} if driver.meant else {}
    if response.rating is not None:
        told["rating"] = response.rating.cpu().numpy()
    return {
        **told,
        "slate": transition.slate.cpu().numpy(),
        "invalid": transition.invalid.cpu().numpy(),
        "left": response.left.cpu().numpy(),
        "response": {name: np.array(signals[..., i]) for i, name in enumerate(names)},
        "given": {name: np.array(given[..., i]) for i, name in enumerate(names)},
    }


def lane_options(options: dict[str, Any] | None, batch: int) -> dict[str, Tensor]:
    """`users` and `lanes` of Gymnasium's reset options as tensors (B,); a single number stands for every lane."""
    found: dict[str, Tensor] = {}
    for name, value in (options or {}).items():
        if name not in ("users", "lanes"):
            raise RecloopError(unknown_name("reset option", name, ("users", "lanes", "instruction")))
        try:
            rows = torch.as_tensor(np.asarray(value))
        except TypeError:
            rows = torch.empty(0)
        if rows.is_floating_point() or rows.dtype == torch.bool or tuple(rows.shape) not in ((), (batch,)):
            raise RecloopError(f"reset option {name}={value!r}; give one whole number or a list of {batch}, one a lane")
        found[name] = rows.to(torch.int64).expand(batch).clone()
    return found


def observed_keys(
    observation: str | Sequence[str], spec: ObservationSpec, shows: Sequence[str] = ()
) -> tuple[str, ...]:
    """The keys of a Dict observation: those named, or for `dict` the default ones of any size, and what an action mode
    `shows`; `RecloopError` for a key that nobody knows."""
    if isinstance(observation, str):
        if observation != "dict":
            raise RecloopError(unknown_name("observation", observation, ("dict", "state", "a tuple of keys")))
        observation = [key for key in DEFAULT_KEYS if 0 not in (spec.space(key).shape or ())]
    known = (*DEFAULT_KEYS, *OPTIONAL_KEYS)
    for key in observation:
        if key not in known:
            raise RecloopError(unknown_name("observation key", key, known))
    if not observation:
        raise RecloopError(f"observation names no keys; choose among {', '.join(known)}")
    return tuple(dict.fromkeys((*observation, *shows)))
