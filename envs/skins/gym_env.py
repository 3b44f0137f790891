"""One user at a time: the skin for `gymnasium.make`."""

from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from recloop.encoders.base.errors import RecloopError
from recloop.envs.simulation.actions import action_tensor
from recloop.envs.simulation.driver import Observed, answers, arrays
from recloop.envs.simulation.tasks import make_driver
from recloop.envs.skins.one_lane import OneLane
from recloop.envs.skins.rendering import RENDER_MODES, checked_render_mode, draw_lane
from recloop.envs.world.world import World


class RecommendEnv(gym.Env[Observed, Any]):
    """Recommend items to a simulated user, slate by slate, until they leave.

    ## Action space

    N items, K places in a slate, C candidates, d the length of item vectors.

    | `action_mode` | space | meaning |
    |---|---|---|
    | `slate` | MultiDiscrete([N] * K) | an item row at every place |
    | `item` | Discrete(N) | one item row; K is 1 |
    | `candidates` | MultiDiscrete([C] * K) | positions in `observation["candidates"]` |
    | `candidates`, `one_at_a_time=True` | Discrete(C) | one position; K actions make a slate |
    | `proto` | Box(-1, 1, (d,)) | the K admissible items with the largest inner product, never a repeat |

    A place that repeats an item, holds one that this user may not be shown again, or points at an empty candidate
    is struck: it gets no answer and is counted in `info["invalid"]`. `action_masks()` tells the admissible choices.

    ## Observation space

    A Dict, or with `observation="state"` the flat Box alone, or the keys you name. An empty place holds N.

    | key | shape | dtype | range | meaning |
    |---|---|---|---|---|
    | `state` | (d,) | float32 | [-1, 1] | the encoder's vector of what the user consumed |
    | `history` | (H,) | int64 | 0 to N | item rows consumed, newest last |
    | `feedback` | (H, S) | float32 | the signals' | the signals of those |
    | `shown` | (L, K) | int64 | 0 to N | the last L slates, newest last |
    | `answers` | (L, K, S) | float32 | the signals' | the answers to them, 0 where not given |
    | `context` | (2,) | float32 | [0, 1], [0, 89] | share of the limit used; log(1 + days since the last session) |
    | `profile` | (p,) | float32 | finite | the user's features |
    | `instruction` | (u,) | float32 | [-1, 1] | what the user asks for in this episode; on request |
    | `action_mask` | (N,) | int8 | 0, 1 | 1 where an item may be shown; on request |
    | `candidates` | (C,) | int64 | 0 to N | item rows to choose from; on request and in mode `candidates` |
    | `picked` | (K,) | int64 | 0 to N | the slate so far; with `one_at_a_time` |

    ## Reward

    Float, the world's default (see its card: a weighted sum of signals, leaving, diversity and invalid places) or
    `reward`, any callable of `recloop.envs.Outcome`. 0 for a micro-step that does not complete a slate.

    ## Starting state

    A user drawn from `users` by (seed, lane, episode), warm from the logged history, or `start="cold"`.
    `reset(seed=...)` starts episode 0 of that seed; `reset()` goes on to the next episode, also amid one.
    `options={"users": row}` starts with that user; `options={"lanes": 17}` acts as lane 17 of a batch;
    `options={"instruction": "a funny film from the nineties"}` is what the user asks for in this episode, in a world
    with an instruction encoder. By default users ask for what their history holds most tellingly. Simulated users
    answer by what they are: they do not hear what the policy was told.

    ## Episode end

    1. Terminated: the user leaves for good.
    2. Truncated: `max_steps` slates were shown and the user is still there.

    ## Info

    `reset`: `user` (row of the users table), `lane`, `episode_number`. `step`: `slate` (K,), `invalid`, `left`, and by
    signal name `response` (K,) and `given` (K,) bool, where that signal exists; nothing for an incomplete slate.

    ## Arguments

    `world`: a `World`, its folder, or None for the built-in truth world. `render_mode`: None, `ansi` or `rgb_array`.
    `num_envs`: 1; more are made by `gymnasium.make_vec`. The others are in `recloop.envs.simulation.tasks.TaskOptions`.

    Raises:
        RecloopError: for arguments and actions that do not fit, in one line.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": RENDER_MODES, "render_fps": 1}  # type: ignore[misc]

    def __init__(
        self,
        world: World | Path | str | None = None,
        *,
        render_mode: str | None = None,
        num_envs: int = 1,
        **options: Any,
    ) -> None:
        if num_envs != 1:
            raise RecloopError(
                f"num_envs={num_envs}: this is one user at a time; make several with recloop.make(num_envs=...), "
                "gymnasium.make_vec or SB3VecEnv"
            )
        self.render_mode = checked_render_mode(render_mode)
        own = ("world", "render_mode", "num_envs")
        self.driver = make_driver(world, 1, watched=render_mode is not None, own=own, **options)
        self.observation_space = self.driver.observation_space
        self.action_space = self.driver.action_space
        self._over = True
        self._lane = OneLane(self.driver) if self.driver.plain else None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observed, dict[str, Any]]:
        """Start an episode; see the class."""
        anew = seed is not None or self._np_random is None or bool(options)
        super().reset(seed=seed)
        if self.driver.waits and not anew and self._lane is not None and (begun := self._lane.begin()) is not None:
            self._over = False
            return begun
        observation = self.driver.restart(self.np_random if anew else None, options)
        self._over = False
        core = self.driver.core
        info = {"user": int(core.users[0]), "lane": int(core.lanes[0]), "episode_number": int(core.episode[0])}
        return arrays(self.driver, observation, 0), info

    def step(self, action: Any) -> tuple[Observed, float, bool, bool, dict[str, Any]]:
        """Act once; after the last step of an episode comes `reset`."""
        if self._over:
            raise RecloopError("the episode is over; call reset() before the next step")
        if self._lane is not None and (stepped := self._lane.step(action)) is not None:
            self._over = stepped[2] or stepped[3]
            return stepped
        agent_step = self.driver.step(action_tensor(action).unsqueeze(0))
        self._over = len(agent_step.finished) > 0
        observation = agent_step.observation if agent_step.final is None else agent_step.final
        info: dict[str, Any] = {}
        if agent_step.transition is not None:
            info = first_lane(answers(self.driver, agent_step.transition))
        return (
            arrays(self.driver, observation, 0),
            agent_step.reward.item(),
            bool(agent_step.terminated.item()),
            bool(agent_step.truncated.item()),
            info,
        )

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Which choices are admissible now, bool (choices,), as MaskablePPO reads them; none in mode `proto`."""
        return self.driver.action_masks()[0].cpu().numpy()

    def render(self) -> Any:
        """The user, the slate and the answer: text (`ansi`) or uint8 (H, W, 3) (`rgb_array`)."""
        return draw_lane(self.driver, 0, self.render_mode)


def first_lane(info: dict[str, Any]) -> dict[str, Any]:
    """The first lane of an info with leading dimensions B: plain numbers and arrays."""
    return {
        key: first_lane(value) if isinstance(value, dict) else value[0].item() if value.ndim == 1 else value[0]
        for key, value in info.items()
    }
