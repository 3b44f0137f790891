"""TensorBoard compares: one run a policy, baselines as lines over the agents' steps, no copies, the table's tags."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from recloop.encoders.base.errors import RecloopError
from recloop.envs.world.world import World
from recloop.experiments.commands.compare import CompareConfig, compare
from recloop.experiments.comparison.results import Comparison
from recloop.experiments.comparison.tracking import Tags
from recloop.experiments.report.tensorboard import RunWriter, made_writer, scenes

AGENT = "reinforce"


class Kept(RunWriter):
    """Keeps what it is given."""

    points: dict[str, dict[str, list[tuple[int, float]]]]
    made: ClassVar[list["Kept"]] = []

    def __init__(self) -> None:
        self.points, self.texts, self.tried, self.closed = {}, {}, {}, False  # type: ignore[var-annotated]
        Kept.made.append(self)

    def scalar(self, run: str, tag: str, value: float, step: int) -> None:
        self.points.setdefault(run, {}).setdefault(tag, []).append((step, value))

    def text(self, run: str, tag: str, words: str) -> None:
        self.texts[run, tag] = words

    def settings(self, run: str, settings: Mapping[str, str | float | bool], figures: Mapping[str, float]) -> None:
        self.tried[run] = (dict(settings), dict(figures))

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="module")
def compared(judged: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path, Kept]:
    """Two policies without seeds and an agent of two trainings, compared twice in one folder."""
    out = tmp_path_factory.mktemp("compared")
    settings = (f"{AGENT}.num_envs=8", f"{AGENT}.validations=2")
    config = CompareConfig(
        Path("w"), ("random", "popularity", AGENT), 2, out, settings, None, 96, episodes=24, progress=False
    )
    compare(judged, config)
    comparison = compare(judged, replace(config, writer=(f"{__name__}:Kept",)))
    return comparison, out / "tensorboard", Kept.made[-1]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    return {
        tag: [(e.step, e.value) for e in events.Scalars(tag)]
        for events in [read(folder)]
        for tag in events.Tags()["scalars"]
    }


def read(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    return events


def test_one_run_a_policy_and_one_a_training(compared: tuple[Comparison, Path, Kept]) -> None:
    _, folder, _ = compared
    runs = {str(p.parent.relative_to(folder)) for p in folder.rglob("events.*")}
    assert runs == {".", "random", "popularity", AGENT, f"{AGENT}/seed0", f"{AGENT}/seed1"}


def test_baselines_are_lines_over_the_agents_steps(compared: tuple[Comparison, Path, Kept]) -> None:
    comparison, folder, _ = compared
    agent, baseline = scalars(folder / AGENT), scalars(folder / "popularity")
    curve = agent[Tags.validation_return]
    assert len(curve) > 1
    assert curve[0][0] == 0
    line = baseline[Tags.validation_return]
    assert [step for step, _ in line] == [0, curve[-1][0]]
    assert line[0][1] == line[1][1]
    judge = "evaluate/judge/return"
    assert [step for step, _ in baseline[judge]] == [0, curve[-1][0]]
    assert [step for step, _ in agent[judge]] == [0, curve[-1][0]]
    found = comparison.headline(AGENT, "judge")
    assert agent[judge][0][1] == pytest.approx(found.value.mean, rel=1e-5)
    assert agent[f"{judge}_low"][0][1] == pytest.approx(found.value.low, rel=1e-5)


def test_agents_and_baselines_are_tried_on_the_same_users(
    compared: tuple[Comparison, Path, Kept], judged: World
) -> None:
    """A policy that is no agent meets what agents are validated on."""
    from recloop.agents.configs import AgentConfig
    from recloop.agents.registry import make_policy
    from recloop.agents.validation import PolicyValidation

    _, folder, _ = compared
    validation = PolicyValidation(judged, AgentConfig.validation_episodes, "cpu")
    expected = validation.mean_return(make_policy("popularity", judged))
    assert scalars(folder / "popularity")[Tags.validation_return][0][1] == pytest.approx(expected, rel=1e-5)


def test_every_tag_is_in_the_table(compared: tuple[Comparison, Path, Kept]) -> None:
    _, folder, kept = compared
    patterns = [re.escape(t).replace("SIMULATOR", r"[\w.-]+").replace("NAME", r"[\w./-]+") for t in Tags.all()]
    tags = {tag for of in kept.points.values() for tag in of}
    for place in {p.parent for p in folder.rglob("events.*")}:
        known = read(place).Tags()
        tags |= {*known["scalars"], *known["images"], *known["histograms"]}
    unknown = [tag for tag in tags if not any(re.fullmatch(pattern, tag) for pattern in patterns)]
    assert not unknown


def test_resuming_writes_no_point_twice(compared: tuple[Comparison, Path, Kept]) -> None:
    _, folder, _ = compared
    for place in {p.parent for p in folder.rglob("events.*")}:
        for tag, points in scalars(place).items():
            assert len({step for step, _ in points}) == len(points), (place, tag)


def test_hparams_layout_text_and_images_are_there(compared: tuple[Comparison, Path, Kept]) -> None:
    _, folder, _ = compared
    root = read(folder)
    assert "custom_scalars__config__" in root.Tags()["tensors"]
    assert f"{Tags.comparison_verdict}/text_summary" in root.Tags()["tensors"]
    assert root.Tags()["images"] == [Tags.comparison_picture]
    assert Tags.comparison_session in read(folder / "random").Tags()["images"]
    tried = {str(p.parent.relative_to(folder)) for p in folder.rglob("events.*") if b"_hparams_" in p.read_bytes()}
    assert tried == {"random", "popularity", f"{AGENT}/seed0", f"{AGENT}/seed1"}


def test_a_writer_of_your_own_gets_what_tensorboard_gets(compared: tuple[Comparison, Path, Kept]) -> None:
    comparison, folder, kept = compared
    assert kept.closed
    for run in ("random", "popularity", AGENT, f"{AGENT}/seed0", f"{AGENT}/seed1"):
        mine = {
            tag: [(s, pytest.approx(v, rel=1e-5, abs=1e-5)) for s, v in points]
            for tag, points in kept.points[run].items()
        }
        there = scalars(folder / run)
        assert set(there) <= set(mine)
        for tag, points in there.items():
            assert points == mine[tag], (run, tag)
    settings, figures = kept.tried[f"{AGENT}/seed1"]
    assert settings["policy"] == AGENT
    assert settings["num_envs"] == 8
    assert figures["evaluate/judge/return"] == pytest.approx(comparison.values(AGENT, "judge", 1).mean())
    assert kept.texts[".", Tags.comparison_verdict].startswith("**")


@pytest.mark.parametrize("path", ["nowhere:Writer", f"{__name__}:Nobody", f"{__name__}", "builtins:dict"])
def test_no_writer_there_is_one_line(path: str) -> None:
    with pytest.raises(RecloopError, match="--writer"):
        made_writer(path)


def test_a_session_is_drawn_as_it_went(compared: tuple[Comparison, Path, Kept]) -> None:
    comparison, _, _ = compared
    rollout = comparison.rollouts["popularity", 0, "judge"]
    drawn = scenes(comparison, "popularity")
    titles = comparison.world.catalogue.titles
    assert drawn[0].slate == tuple(titles[row] for row in rollout.trace_slate[0].tolist())
    assert drawn[0].consumed == tuple(bool(answer > 0.5) for answer in rollout.trace_signals[0, :, 0])
    assert drawn[1].state.tolist() == rollout.trace_state[1].tolist()
    assert (rollout.trace_state[0] != rollout.trace_state[1]).any() or not any(drawn[0].consumed)
