"""Many users at once: the skin for `gymnasium.make_vec(..., vectorization_mode="vector_entry_point")`."""

from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from torch import Tensor

from recloop.encoders.base.errors import RecloopError
from recloop.envs.interaction.observation import Observation
from recloop.envs.simulation.actions import action_tensor
from recloop.envs.simulation.driver import AgentStep, Driver, answers, arrays
from recloop.envs.simulation.tasks import make_driver
from recloop.envs.skins.autoreset import WaitingDriver, autoreset_mode_of
from recloop.envs.skins.rendering import RENDER_MODES, RENDERED_LANES, checked_render_mode, draw_lane
from recloop.envs.world.world import World


class RecommendVectorEnv(gym.vector.VectorEnv[Any, Any, Any]):
    """`RecommendEnv` for B users at once, computed as one batch.

    Spaces, reward and ends are those of `RecommendEnv`, with a leading dimension B. Lane 0 of a seed is the single
    environment of that seed. A lane that ends starts its next episode as `autoreset_mode` says:

    | mode | the step that ends an episode returns | the next episode starts |
    |---|---|---|
    | `SAME_STEP` | the first observation of the next; the last one is `info["final_obs"][lane]` | in the same step |
    | `NEXT_STEP` | the last observation | in the next step, which ignores the lane's action; its reward is 0 |
    | `DISABLED` | the last observation | by `reset(options={"reset_mask": mask})`, before the next step |

    The episodes are the same in all modes. Gymnasium's and TorchRL's wrappers each want one of them.

    Info, each key with its mask `_key` (B,): `slate` (B, K), `invalid`, `left`, `response` and `given` by signal name
    for lanes that acted, with SAME_STEP for those that ended in `final_info`; for lanes that start an episode, as after
    `reset`, its `user`, `lane` and `episode_number`.

    Args:
        num_envs: B, lanes.
        world: a `World`, its folder, or None for the built-in truth world.
        render_mode: None, `ansi` or `rgb_array`; the first 16 lanes are rendered.
        autoreset_mode: a mode of `gymnasium.vector.AutoresetMode`, or its name.
        tensors: hand out torch tensors on the device, shared with the simulation without a copy and not to be
            changed. Actions may be tensors or arrays either way; `final_obs` is then one observation of the finished
            lanes, in rising order.
        options: see `recloop.envs.simulation.tasks.TaskOptions`.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": RENDER_MODES,
        "render_fps": 1,
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        world: World | Path | str | None = None,
        *,
        render_mode: str | None = None,
        tensors: bool = False,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        **options: Any,
    ) -> None:
        self.render_mode = checked_render_mode(render_mode)
        self.num_envs = num_envs
        self.tensors = tensors
        self.autoreset_mode = autoreset_mode_of(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}  # type: ignore[misc]
        own = ("num_envs", "world", "render_mode", "tensors", "autoreset_mode")
        kind = Driver if self.autoreset_mode is AutoresetMode.SAME_STEP else WaitingDriver
        self.driver = make_driver(world, num_envs, watched=render_mode is not None, own=own, kind=kind, **options)
        self.single_observation_space = self.driver.observation_space
        self.single_action_space = self.driver.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode in every lane: with `seed` episode 0, without it each lane's next one.

        `options` may hold `users` and `lanes`, (B,) each, and `instruction`, one text or B of them; or, in modes other
        than SAME_STEP, `reset_mask`, bool (B,): the lanes that start their next episode, while the others go on.
        """
        if options is not None and "reset_mask" in options:
            return self._reset_some(seed, dict(options))
        anew = seed is not None or self._np_random is None or bool(options)
        super().reset(seed=seed)
        observation = self.driver.restart(self.np_random if anew else None, options)
        return self._handed_out(observation), self._arrivals(np.ones(self.num_envs, dtype=np.bool_))

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Act in every lane; see the class."""
        waited = self._waiting
        if self.autoreset_mode is AutoresetMode.DISABLED and waited.any():
            raise RecloopError(
                f"the episode of lane {int(waited.argmax())} is over; start the next one with "
                "reset(options={'reset_mask': terminated | truncated}) before the next step"
            )
        agent_step = self.driver.step(action_tensor(actions))
        observation = self._handed_out(agent_step.observation)
        info = self._info(agent_step, waited)
        if self.tensors:
            return observation, agent_step.reward, agent_step.terminated, agent_step.truncated, info
        return (
            observation,
            agent_step.reward.cpu().numpy().astype(np.float64),
            agent_step.terminated.cpu().numpy(),
            agent_step.truncated.cpu().numpy(),
            info,
        )

    def action_masks(self) -> Any:
        """Which choices are admissible now, bool (B, choices); none in mode `proto`."""
        masks = self.driver.action_masks()
        return masks if self.tensors else masks.cpu().numpy()

    def render(self) -> tuple[Any, ...]:
        """The first 16 lanes, each as text (`ansi`) or uint8 (H, W, 3) (`rgb_array`)."""
        lanes = range(min(self.num_envs, RENDERED_LANES))
        return tuple(draw_lane(self.driver, lane, self.render_mode) for lane in lanes)

    @property
    def _waiting(self) -> npt.NDArray[np.bool_]:
        """Lanes whose episode is over, bool (B,), and whose next one nobody saw yet; none in mode SAME_STEP."""
        if isinstance(self.driver, WaitingDriver):
            return _numpy(self.driver.waiting)
        return np.zeros(self.num_envs, dtype=np.bool_)

    def _reset_some(self, seed: int | None, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        mask = np.asarray(options.pop("reset_mask"))
        if not isinstance(self.driver, WaitingDriver):
            raise RecloopError(
                "reset_mask needs autoreset_mode='DISABLED' (or 'NEXT_STEP'); pass it to the environment"
            )
        if seed is not None or options:
            raise RecloopError(
                "reset_mask goes with no seed and no other option: these are for all lanes; reset() them all"
            )
        if mask.dtype != np.bool_ or mask.shape != (self.num_envs,) or not mask.any():
            raise RecloopError(
                f"reset_mask is {mask.dtype} of shape {mask.shape} with {int(mask.sum())} lanes; give bool "
                f"({self.num_envs},), True in one lane at least"
            )
        observation = self.driver.restart_lanes(torch.from_numpy(mask).to(self.driver.core.device))
        return self._handed_out(observation), self._arrivals(mask)

    def _handed_out(self, observation: Observation) -> Any:
        if self.tensors:
            return observation["state"] if self.driver.flat else observation
        return arrays(self.driver, observation)

    def _arrivals(self, where: npt.NDArray[np.bool_]) -> dict[str, Any]:
        core = self.driver.core
        facts = {"user": core.users, "lane": core.lanes, "episode_number": core.episode}
        return _masked({name: np.where(where, _numpy(value), 0) for name, value in facts.items()}, where)

    def _info(self, agent_step: AgentStep, waited: npt.NDArray[np.bool_]) -> dict[str, Any]:
        if agent_step.transition is None:
            return {}
        if self.tensors:
            return self._tensor_info(agent_step)
        facts = answers(self.driver, agent_step.transition)
        if self.autoreset_mode is not AutoresetMode.SAME_STEP:
            return {**_masked(facts, ~waited), **(self._arrivals(waited) if waited.any() else {})}
        over = np.zeros(self.num_envs, dtype=np.bool_)
        over[_numpy(agent_step.finished)] = True
        info = _masked(facts, ~over)
        if agent_step.final is None:
            return info
        final = np.full(self.num_envs, None, dtype=object)
        for place, lane in enumerate(agent_step.finished.tolist()):
            final[lane] = arrays(self.driver, agent_step.final, place)
        info.update(final_obs=final, _final_obs=over.copy())
        info.update(final_info=_masked(facts, over), _final_info=over.copy())
        return {**info, **self._arrivals(over)}

    def _tensor_info(self, agent_step: AgentStep) -> dict[str, Any]:
        """The same without a copy: tensors, nothing masked, the finished lanes named."""
        step = agent_step.transition
        if step is None:
            return {}
        names = [signal.name for signal in self.driver.core.world.signals]
        signals, given = step.response.signals, step.response.given
        info: dict[str, Any] = {
            "slate": step.slate,
            "invalid": step.invalid,
            "left": step.response.left,
            "response": {name: signals[..., i] for i, name in enumerate(names)},
            "given": {name: given[..., i] for i, name in enumerate(names)},
        }
        if agent_step.final is not None:
            info["finished"] = agent_step.finished
            if self.autoreset_mode is AutoresetMode.SAME_STEP:
                info["final_obs"] = agent_step.final["state"] if self.driver.flat else agent_step.final
        return info


def _numpy(value: Tensor) -> npt.NDArray[Any]:
    return np.asarray(value.cpu().numpy())


def _masked(facts: dict[str, Any], where: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Facts by lane with Gymnasium's masks beside them, zero where the mask is False."""
    info: dict[str, Any] = {}
    for key, value in facts.items():
        if isinstance(value, dict):
            info[key] = _masked(value, where)
        else:
            info[key] = np.where(where.reshape(-1, *[1] * (value.ndim - 1)), value, np.zeros_like(value))
        info[f"_{key}"] = where.copy()
    return info
