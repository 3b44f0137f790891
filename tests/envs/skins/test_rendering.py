"""Rendering: what a person sees of one lane, in every action mode."""

from typing import Any

import numpy as np
import pytest

from recloop.encoders.base.errors import RecloopError
from recloop.envs.skins.gym_env import RecommendEnv
from recloop.envs.skins.gym_vector import RecommendVectorEnv
from recloop.envs.skins.rendering import Scene, render_ansi, render_rgb, scene_of
from recloop.envs.skins.sb3_vector import SB3VecEnv
from recloop.envs.world.world import World

MODES: dict[str, dict[str, Any]] = {
    "slate": {"action_mode": "slate"},
    "item": {"action_mode": "item"},
    "candidates": {"action_mode": "candidates"},
    "one at a time": {"action_mode": "candidates", "one_at_a_time": True},
    "proto": {"action_mode": "proto", "observation": "state"},
}


def scene(**changes: Any) -> Scene:
    parts: dict[str, Any] = {
        "heading": "tiny: user u1",
        "progress": "action 1",
        "recent": ("Film 1",),
        "slate": ("Film 2", ""),
        "answers": ("watch  rating 4", ""),
        "consumed": (True, False),
        "state": np.array([-1.0, 0.0, 1.0], dtype=np.float32),
    }
    return Scene(**{**parts, **changes})


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_renders_both_ways(world: World, mode: str) -> None:
    for render_mode in ("ansi", "rgb_array"):
        env = RecommendEnv(world, render_mode=render_mode, **MODES[mode])
        env.reset(seed=0)
        pictures = [env.render()]
        env.step(env.action_space.sample())
        pictures.append(env.render())
        if render_mode == "ansi":
            assert all(isinstance(text, str) for text in pictures)
            assert "not shown yet" in pictures[0] or mode == "one at a time"
            assert "Film" in pictures[1].split("slate:")[1]
        else:
            assert all(image.shape == (480, 800, 3) and image.dtype == np.uint8 for image in pictures)
            assert (pictures[0] != pictures[1]).any()


def test_the_text_by_hand() -> None:
    assert render_ansi(scene()) == (
        "\x1b[1mtiny: user u1\x1b[0m\naction 1\nrecently:\n  Film 1\nslate:\n"
        "\x1b[32m   1. Film 2   watch  rating 4\x1b[0m\n   2. (empty)\nstate: ▁▅█\n"
    )


def test_the_scene_tells_the_answers(world: World) -> None:
    env = RecommendEnv(world, render_mode="ansi", max_steps=2)
    env.reset(seed=0, options={"users": 9})
    info = env.step(np.array([3, 4, 4, 5]))[4]
    seen = scene_of(env.driver, 0)
    assert seen.heading == "tiny: user u9, lane 0"
    assert seen.slate == ("Film 3", "Film 4", "", "Film 5")
    assert seen.consumed == tuple((info["response"]["watch"] == 1).tolist())
    assert seen.answers[2] == ""
    for place in (0, 1, 3):
        rating = info["response"]["rating"][place]
        assert seen.answers[place] == (f"watch  rating {rating:g}" if seen.consumed[place] else "no watch")


def test_the_last_scene_shows_the_user_who_left(world: World) -> None:
    """The core is in the next episode already; the picture is of the one that ended."""
    env = RecommendEnv(world, render_mode="ansi", max_steps=2)
    env.reset(seed=0, options={"users": 9})
    total, over = 0.0, False
    while not over:
        seen, reward, terminated, truncated, _ = env.step(np.array([0, 1, 2, 3]))
        total, over = total + reward, terminated or truncated
    picture = scene_of(env.driver, 0)
    assert "user u9" in picture.heading
    assert f"return {total:.2f}" in picture.progress
    assert picture.progress.endswith("left" if terminated else "time is up")
    assert isinstance(seen, dict)
    np.testing.assert_array_equal(picture.state, seen["state"])
    newest = [int(row) for row in seen["history"] if row < 40]
    assert picture.recent == tuple(f"Film {row}" for row in newest)


def test_batches_render_their_first_lanes(world: World) -> None:
    envs = RecommendVectorEnv(20, world, render_mode="ansi")
    envs.reset(seed=0)
    frames = envs.render()
    assert len(frames) == 16
    assert "lane 15" in frames[15]
    sb3 = SB3VecEnv(world, 3, render_mode="rgb_array")
    sb3.reset()
    picture = sb3.render()
    assert picture is not None
    assert picture.shape == (960, 1600, 3)


def test_titles_with_control_characters_and_formulas_do_no_harm() -> None:
    wild = "cost $5 and $\\alpha$ _^{ " + "x" * 20
    assert render_rgb(scene(recent=(wild,), slate=(wild, ""))).shape == (480, 800, 3)


def test_titles_are_one_short_line(world: World) -> None:
    from recloop.envs.skins.rendering import short_title

    assert short_title("a\x1b[31m\nb") == "a\\x1b[31m\\nb"
    assert len(short_title("long " * 1000)) == 44


def test_no_mode_no_picture(world: World) -> None:
    env = RecommendEnv(world)
    env.reset(seed=0)
    with pytest.raises(RecloopError, match="render_mode is None; make the environment with one of ansi, rgb_array"):
        env.render()
