"""A floor that training keeps to."""

import pytest
import torch

from recloop.agents.policy import FitOptions
from recloop.agents.registry import make_policy
from recloop.agents.validation import PolicyValidation, ValidationTrial
from recloop.encoders.base.errors import RecloopError
from recloop.envs.interaction.floors import Floor, FlooredReward
from recloop.envs.interaction.reward import Outcome
from recloop.envs.simulation.core import Core
from recloop.envs.simulation.penalties import PenaltyConfig, training_reward
from recloop.envs.truth.worlds import truth_world
from recloop.envs.world.world import World


@pytest.fixture(scope="module")
def bait() -> World:
    return truth_world("clickbait", users=60, items=60, seed=2)


def outcome_of(world: World, step: int = 0) -> Outcome:
    core = Core(world, batch=30, seed=4)
    for number in range(step + 1):
        slate = torch.stack(
            [torch.randperm(60, generator=torch.Generator().manual_seed(90 * number + i))[:5] for i in range(30)]
        )
        one = core.step(slate)
    return Outcome(one.slate, one.response, one.invalid, core.encoder.item_vectors, world.signals)


def test_the_measures_against_a_loop(bait: World) -> None:
    outcome = outcome_of(bait)
    gives, by = Floor("liking").measured(outcome)
    clicked = outcome.response.signals[..., 0]
    assert torch.equal(by, clicked.sum(1))
    assert torch.equal(gives, outcome.response.signals[..., 1].sum(1))
    gives, by = Floor("diversity").measured(outcome)
    vectors = torch.nn.functional.normalize(outcome.item_vectors[outcome.slate[0]], dim=1)
    cosines = [float(vectors[i] @ vectors[j]) for i in range(5) for j in range(5) if i != j]
    assert float(gives[0]) == pytest.approx(1 - sum(cosines) / 20, abs=1e-5)
    assert bool((by == 1).all())


def test_the_multiplier_rises_below_the_floor_and_falls_above_it(bait: World) -> None:
    outcome = outcome_of(bait)
    gives, by = Floor("liking").measured(outcome)
    share = float(gives.sum() / by.sum())
    missed = FlooredReward(bait.reward, Floor("liking", min(share + 0.2, 1.0), rate=0.1))
    first, second = missed(outcome), missed(outcome)
    assert float(missed.multiplier) == pytest.approx(2 * 0.1 * 0.2, abs=1e-5)
    torch.testing.assert_close(second - bait.reward(outcome), missed.multiplier * (gives - missed.floor.least * by))
    assert not torch.equal(first, second)
    kept = FlooredReward(bait.reward, Floor("liking", max(share - 0.2, 0.0), rate=0.1))
    kept.multiplier = torch.tensor(0.03)
    for _ in range(3):
        kept(outcome)
    assert float(kept.multiplier) == 0.0
    again = FlooredReward(bait.reward, missed.floor)
    again.restore(missed.state())
    assert torch.equal(again(outcome), missed(outcome))


def test_without_a_floor_nothing_is_charged(bait: World) -> None:
    assert training_reward(bait, PenaltyConfig()) is None
    assert isinstance(training_reward(bait, PenaltyConfig(floor_of="diversity", floor=0.3)), FlooredReward)


def test_policies_are_chosen_among_those_that_keep_it(bait: World) -> None:
    policies = {name: make_policy(name, bait) for name in ("random", "popularity")}
    plain = {name: PolicyValidation(bait, 60, "cpu").trial(policy) for name, policy in policies.items()}
    assert plain["random"].rank == (1.0, plain["random"].value)
    assert plain["random"].measure is None
    high = {n: PolicyValidation(bait, 60, "cpu", floor=Floor("liking", 0.99)).trial(p) for n, p in policies.items()}
    measures = {name: found.measure or 0.0 for name, found in high.items()}
    assert (high["random"].rank > high["popularity"].rank) == (measures["random"] > measures["popularity"])
    assert all(found.rank == (0.0, found.measure) for found in high.values())
    lost = ValidationTrial(-5.0, (1.0, -5.0), 0.6)
    assert lost.rank > high["random"].rank  # a floor that is kept at a loss ranks above one that is missed


@pytest.mark.slow
def test_a_learner_gives_more_where_it_must(bait: World) -> None:
    def liking(penalties: PenaltyConfig) -> float:
        options = FitOptions(0, 30_000, penalties=penalties)
        policy = make_policy("recloop-ppo", bait, options)
        return PolicyValidation(bait, 200, "cpu", floor=Floor("liking", 0.5)).trial(policy).measure or 0.0

    assert liking(PenaltyConfig(floor_of="liking", floor=0.55)) > liking(PenaltyConfig()) + 0.1


def test_bad_input(bait: World) -> None:
    with pytest.raises(RecloopError, match="floor of"):
        Floor("happiness")  # type: ignore[arg-type]
    with pytest.raises(RecloopError, match=r"least=3.*give 0 to 2"):
        Floor("diversity", 3.0)
    with pytest.raises(RecloopError, match=r"floor=0.5 is of nothing"):
        PenaltyConfig(floor=0.5)
    lonely = truth_world("clicks", users=20, items=20)
    core = Core(lonely, batch=2)
    one = core.step(torch.arange(10).view(2, 5))
    outcome = Outcome(one.slate, one.response, one.invalid, core.encoder.item_vectors, lonely.signals)
    with pytest.raises(RecloopError, match="reads the second signal and this world has 'click' alone"):
        Floor("liking", 0.5).measured(outcome)
