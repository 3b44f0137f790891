"""Many users at once for Stable-Baselines3."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

from recloop.encoders.base.errors import RecloopError
from recloop.envs.simulation.actions import action_tensor
from recloop.envs.simulation.driver import answers, arrays, lane_options
from recloop.envs.simulation.tasks import make_driver
from recloop.envs.skins.rendering import RENDERED_LANES, checked_render_mode, draw_lane
from recloop.envs.world.world import World

Indices = None | int | Iterable[int]


class SB3VecEnv(VecEnv):
    """`RecommendEnv` for B users at once, computed as one batch, in the manner of Stable-Baselines3.

    Spaces, reward and ends are those of `recloop.envs.skins.gym_env.RecommendEnv`. Differences from a Gymnasium vector
    environment are SB3's: `reset()` returns observations alone; a step returns four values; a lane that ends starts
    its next episode in the same step.

    Infos are empty but for lanes that ended: `terminal_observation`, `TimeLimit.truncated` (truncated and not
    terminated: SB3 bootstraps there), `episode` with return `r`, length `l` in actions and seconds `t` as
    `Monitor` writes it, and `slate`, `invalid`, `left`, `response`, `given` of the last step.

    Args:
        world: a `World`, its folder, or None for the built-in truth world.
        num_envs: B, parallel users.
        seed: of the first `reset()`; later ones go on to the next episodes unless `seed(...)` was called.
        action_mode: default `proto`.
        observation: `state` for the flat Box (default), `dict`, or a tuple of keys for a Dict.
        render_mode: None, `ansi` or `rgb_array`; the first 16 lanes are rendered.
        options: see `recloop.envs.simulation.tasks.TaskOptions`.
    """

    def __init__(
        self,
        world: World | Path | str | None = None,
        num_envs: int = 1,
        *,
        seed: int = 0,
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        self.render_mode = checked_render_mode(render_mode)
        options.setdefault("action_mode", "proto")
        options.setdefault("observation", "state")
        own = ("world", "num_envs", "seed", "render_mode")
        self.driver = make_driver(world, num_envs, seed=seed, watched=render_mode is not None, own=own, **options)
        self._seed: int | None = seed
        self._lane_options: dict[str, Any] = {}
        self._actions: npt.NDArray[Any] | None = None
        self._started = perf_counter()
        super().__init__(num_envs, self.driver.observation_space, self.driver.action_space)

    def reset(self) -> Any:
        """Start an episode in every lane: observations (B, ...)."""
        chosen = lane_options(self._lane_options, self.num_envs)
        if self._seed is not None or chosen:
            seed = self.driver.core.seed if self._seed is None else self._seed
            observation = self.driver.reset(seed=seed, **chosen)
        else:
            observation = self.driver.next_episode()
        core = self.driver.core
        rows = zip(core.users.tolist(), core.lanes.tolist(), core.episode.tolist(), strict=True)
        self.reset_infos = [{"user": user, "lane": lane, "episode_number": n} for user, lane, n in rows]
        self._seed = None
        self._lane_options = {}
        return arrays(self.driver, observation)

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """Take note of the actions (B, ...)."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, npt.NDArray[np.float32], npt.NDArray[np.bool_], list[dict[str, Any]]]:
        """Act: observations, rewards (B,), dones (B,), infos."""
        if self._actions is None:
            raise RecloopError("step_wait() without step_async(); call step(actions)")
        agent_step = self.driver.step(action_tensor(self._actions))
        self._actions = None
        infos: list[dict[str, Any]] = [{}] * self.num_envs
        if agent_step.final is not None and agent_step.transition is not None:
            facts = answers(self.driver, agent_step.transition)
            now = perf_counter()
            for place, lane in enumerate(agent_step.finished.tolist()):
                infos[lane] = {
                    "terminal_observation": arrays(self.driver, agent_step.final, place),
                    "TimeLimit.truncated": bool(agent_step.truncated[lane]),
                    "episode": {
                        "r": float(agent_step.returns[lane]),
                        "l": int(agent_step.lengths[lane]),
                        "t": round(now - self._started, 6),
                    },
                    **_lane(facts, lane),
                }
        dones = (agent_step.terminated | agent_step.truncated).cpu().numpy()
        return arrays(self.driver, agent_step.observation), agent_step.reward.cpu().numpy(), dones, infos

    def close(self) -> None:
        """Nothing to release."""

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed the next `reset()`: one seed for all lanes, which differ by their names."""
        self._seed = int(np.random.default_rng().integers(2**31)) if seed is None else seed
        return [self._seed] * self.num_envs

    def set_options(self, options: list[dict[str, Any]] | dict[str, Any] | None = None) -> None:
        """`users` and `lanes` (B,) of the next `reset()`; a list gives one dict a lane."""
        if isinstance(options, list):
            names = {name for lane in options for name in lane}
            options = {name: [lane[name] for lane in options] for name in names}
        self._lane_options = dict(options or {})

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Which choices are admissible now, bool (B, choices); none in mode `proto`."""
        return np.array(self.driver.action_masks().cpu().numpy())

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """An attribute, once for every lane asked for: lanes share all but their users."""
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        """Set an attribute of all lanes; they share it, so one lane alone cannot have another value."""
        if set(self._get_indices(indices)) != set(range(self.num_envs)):
            raise RecloopError(f"lanes share '{attr_name}'; set it for all {self.num_envs} with indices=None")
        setattr(self, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Indices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of the lanes: `action_masks`, `render`, or a question that all answer alike."""
        lanes = list(self._get_indices(indices))
        if method_name == "action_masks":
            masks = self.action_masks()
            return [masks[lane] for lane in lanes]
        if method_name == "render":
            return [draw_lane(self.driver, lane, self.render_mode) for lane in lanes]
        if method_name == "get_wrapper_attr":
            return self.get_attr(method_args[0], lanes)
        method: Callable[..., Any] | None = getattr(self, method_name, None)
        if method is None:
            raise AttributeError(f"{type(self).__name__} has no method '{method_name}'")
        raise RecloopError(f"'{method_name}' acts on all lanes at once; call it on the environment itself")

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Indices = None) -> list[bool]:
        """True for `Monitor`, whose record of episodes every lane keeps; False for all other wrappers."""
        return [wrapper_class is Monitor for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[npt.NDArray[np.uint8] | None]:
        """The first 16 lanes as uint8 (H, W, 3)."""
        return [draw_lane(self.driver, lane, "rgb_array") for lane in range(min(self.num_envs, RENDERED_LANES))]


def _lane(facts: dict[str, Any], lane: int) -> dict[str, Any]:
    return {
        key: _lane(value, lane) if isinstance(value, dict) else np.array(value[lane]) for key, value in facts.items()
    }
