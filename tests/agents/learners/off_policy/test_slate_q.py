"""SlateQ: choice models by hand, the best slate against all slates, targets against a plain loop, and its policy."""

from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor

from recloop.agents.learners.loop import Training, learn
from recloop.agents.learners.off_policy.choice_models import (
    Competition,
    Search,
    UsersChoice,
    best_positions,
    chances,
    choice_loss,
    shares,
    slate_value,
)
from recloop.agents.learners.off_policy.slate_q import SlateQ, SlateQConfig, SlateQPolicy
from recloop.agents.networks.features import NetworkConfig
from recloop.agents.policy import FitOptions
from recloop.agents.slates import FORBIDDEN
from recloop.agents.validation import PolicyValidation
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.reward import WeightedReward
from recloop.envs.users.contract import UserSimulator
from recloop.envs.world.world import World

SMALL = NetworkConfig(hidden=16, slate_dim=4, layers=1, prior=0.3, state_gain=3.0)
EVERY_PLACE = torch.tensor([[True, True]])


@pytest.fixture(scope="module")
def obvious(tiny_world: World) -> World:
    return replace(tiny_world, consumes_twice=True, reward=WeightedReward({"click": 1.0}))


def collected(world: World, **changes: Any) -> SlateQ:
    """A learner with 12 steps of 16 lanes in its replay, all networks unlike each other."""
    config = SlateQConfig(num_envs=16, network=SMALL, learning_starts=10**6, buffer_size=4_000, **changes)
    training = Training(SlateQ, world, FitOptions(seed=1), config)
    seen = training._observed()
    for _ in range(3):
        seen = training._collect(seen)
    learner = training.learner
    assert isinstance(learner, SlateQ)
    generator = torch.Generator().manual_seed(0)
    for module in learner._modules.values():
        for parameter in module.parameters():
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return learner


def test_chances_by_hand() -> None:
    """Odds of 1 and 3: alone 1/2 and 3/4; as one choice with the null item of weight 1, 1/5 and 3/5."""
    log_odds = torch.tensor([[1.0, 3.0]]).log()
    assert chances(log_odds, EVERY_PLACE, "independent")[0].tolist() == pytest.approx([0.5, 0.75])
    assert chances(log_odds, EVERY_PLACE, "logit")[0].tolist() == pytest.approx([0.2, 0.6])
    second = torch.tensor([[False, True]])
    for competition in ("independent", "logit"):
        assert chances(log_odds, second, competition)[0].tolist() == pytest.approx([0.0, 0.75])
    empty = torch.tensor([[FORBIDDEN, FORBIDDEN]])
    assert chances(empty, ~EVERY_PLACE, "logit")[0].tolist() == [0.0, 0.0]


def test_several_consumed_items_share_the_one_choice_and_count_each_where_places_are_independent() -> None:
    consumed = torch.tensor([[True, True, False], [False, False, False]])
    assert shares(consumed, "logit").tolist() == [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]
    assert shares(consumed, "independent").tolist() == [[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]


def test_choice_loss_by_hand() -> None:
    log_odds = torch.tensor([[1.0, 3.0]]).log()
    both, none = torch.tensor([[True, True]]), torch.tensor([[False, False]])
    logs = torch.tensor([0.2, 0.6]).log()
    assert float(choice_loss(log_odds, both, EVERY_PLACE, "logit")) == pytest.approx(-float(logs.mean()))
    assert float(choice_loss(log_odds, none, EVERY_PLACE, "logit")) == pytest.approx(-float(torch.tensor(0.2).log()))
    one = torch.tensor([[True, False]])
    wanted = -float((torch.tensor(0.5).log() + torch.tensor(0.25).log()) / 2)
    assert float(choice_loss(log_odds, one, EVERY_PLACE, "independent")) == pytest.approx(wanted)
    second = torch.tensor([[False, True]])
    assert float(choice_loss(log_odds, one, second, "independent")) == pytest.approx(-float(torch.tensor(0.25).log()))


@pytest.mark.parametrize("competition", ["independent", "logit"])
def test_the_loss_is_lowest_at_the_frequencies(competition: Competition) -> None:
    """A slate of two whose items are consumed alone in 2 and 1 of 8 cases, never together."""
    consumed = torch.zeros(8, 2, dtype=torch.bool)
    consumed[:2, 0], consumed[2, 1] = True, True
    log_odds = torch.zeros(1, 2, requires_grad=True)
    shown = torch.ones_like(consumed)
    descent = torch.optim.LBFGS([log_odds], lr=1.0, max_iter=50)

    def loss() -> Tensor:
        descent.zero_grad()
        value = choice_loss(log_odds.expand(8, 2), consumed, shown, competition)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    descent.step(loss)
    found = chances(log_odds.detach(), EVERY_PLACE, competition)
    assert found[0].tolist() == pytest.approx([0.25, 0.125], abs=1e-3)


def cases(batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Log-odds, worths (some below 0) and masks of seven candidates."""
    generator = torch.Generator().manual_seed(3)
    log_odds = 2 * torch.randn(batch, 7, generator=generator)
    worth = 1 + 1.5 * torch.randn(batch, 7, generator=generator)
    mask = torch.rand(batch, 7, generator=generator) < 0.8
    mask[:, :3] = True
    return log_odds, worth, mask


def values_of(positions: Tensor, competition: Competition, log_odds: Tensor, worth: Tensor) -> Tensor:
    shown = torch.ones_like(positions, dtype=torch.bool)
    return slate_value(log_odds.gather(1, positions), worth.gather(1, positions), shown, competition)


def best_of_all(competition: Competition, k: int, log_odds: Tensor, worth: Tensor, mask: Tensor) -> Tensor:
    """The value (B,) of the best slate of exactly k admissible items, every slate tried."""
    best = torch.full((len(mask),), -torch.inf)
    for slate in combinations(range(mask.shape[1]), k):
        positions = torch.tensor([slate]).expand(len(mask), -1)
        value = values_of(positions, competition, log_odds, worth)
        best = torch.where(mask.gather(1, positions).all(1), best.maximum(value), best)
    return best


@pytest.mark.parametrize("k", [1, 3])
def test_the_exact_search_finds_the_best_of_all_slates(k: int) -> None:
    log_odds, worth, mask = cases(1000)
    for competition in ("independent", "logit"):
        found = best_positions(log_odds, worth, mask, k, competition, "exact")
        assert bool(mask.gather(1, found).all())
        best = best_of_all(competition, k, log_odds, worth, mask)
        assert torch.allclose(values_of(found, competition, log_odds, worth), best, atol=1e-5)


@pytest.mark.parametrize(("search", "often"), [("top-k", 0.2), ("greedy", 0.4)])
def test_quick_searches_never_beat_the_best_and_often_reach_it(search: Search, often: float) -> None:
    log_odds, worth, mask = cases(1000)
    found = best_positions(log_odds, worth, mask, 3, "logit", search)
    best = best_of_all("logit", 3, log_odds, worth, mask)
    missing = best - values_of(found, "logit", log_odds, worth)
    assert float(missing.min()) > -1e-5
    assert often < float((missing < 1e-5).float().mean()) < 1
    assert bool(mask.gather(1, found).all())


def test_searches_by_hand() -> None:
    """Odds 10, 1, 1 of worth 1, 3, 3: the popular item takes the choice away from the worthy ones."""
    log_odds, worth = torch.tensor([[10.0, 1.0, 1.0]]).log(), torch.tensor([[1.0, 3.0, 3.0]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    found = {s: sorted(best_positions(log_odds, worth, mask, 2, "logit", s)[0].tolist()) for s in ("top-k", "exact")}
    assert found == {"top-k": [0, 1], "exact": [1, 2]}  # (10 + 3) / 12 against 6 / 3
    assert best_positions(log_odds, worth, mask, 1, "logit", "greedy")[0].tolist() == [1]  # 3 / 2 against 10 / 11


@pytest.mark.parametrize("search", ["top-k", "greedy", "exact"])
def test_where_few_are_admissible_others_fill_the_end(search: Search) -> None:
    mask = torch.tensor([[False, True, False, True]])
    worth = torch.tensor([[9.0, -1.0, 9.0, -2.0]])
    found = best_positions(torch.zeros(1, 4), worth, mask, 3, "logit", search)[0].tolist()
    assert set(found[:2]) == {1, 3}
    assert len(set(found)) == 3


@pytest.mark.parametrize("target", ["q-learning", "sarsa"])
@pytest.mark.parametrize("competition", ["independent", "logit"])
@torch.no_grad()
def test_targets_against_a_plain_loop(obvious: World, target: str, competition: Competition) -> None:
    learner = collected(obvious, target=target, competition=competition, search="exact")
    drawn = learner.replay.sample(48)
    look = learner.online.look(drawn.next_observation)
    log_odds, (nothing, worth) = learner.choice(drawn.next_observation, look), learner.target.worths(look)
    own_worth = learner.online.worths(look)[1]
    wanted = drawn.reward.clone()
    for lane in range(48):
        slate = list(best_positions(log_odds, own_worth, look.mask, 3, competition, "exact")[lane])
        if target == "sarsa" and drawn.follows[lane]:
            slate = list((look.items[lane] == drawn.next_slate[lane].unsqueeze(1)).nonzero()[:, 1])
        odds = {i: float(log_odds[lane, i].exp()) for i in slate}
        value = float(nothing[lane])
        for i in slate:
            rivals = odds[i] if competition == "independent" else sum(odds.values())
            value += odds[i] / (1 + rivals) * float(worth[lane, i])
        wanted[lane] += drawn.discount[lane] * value
    assert torch.allclose(learner._target(drawn), wanted, atol=1e-3)
    assert 0 < int(drawn.follows.sum()) < 48


@torch.no_grad()
def test_what_was_consumed_stands_in_for_the_chances(obvious: World) -> None:
    learner = collected(obvious)
    drawn = learner.replay.sample(32)
    nothing, worth = learner.online.worths(learner._chosen(drawn))
    q = nothing + (worth * drawn.extra["consumed"]).sum(1)
    errors = q - learner._target(drawn)
    huber = torch.where(errors.abs() < 1, 0.5 * errors.square(), errors.abs() - 0.5).mean()
    assert float(learner._loss(drawn)["train/q_loss"]) == pytest.approx(float(huber), rel=1e-4)


def test_the_users_choice_is_what_their_model_expects(obvious: World) -> None:
    """TwoTastes consume their half for certain; the policy keeps their model and shows that half from the start."""
    config = SlateQConfig(
        num_envs=16, network=SMALL, steps=640, learning_starts=64, batch_size=32, choice="users", validation_episodes=12
    )
    training = Training(SlateQ, obvious, FitOptions(), config)
    seen = training._observed()
    assert isinstance(training.learner, SlateQ)
    look = training.learner.online.look(seen)
    log_odds = training.learner.choice(seen, look)
    likes = (look.items >= 5) == (seen["profile"] > 0.5)
    assert torch.equal(log_odds > 0, likes)
    policy = learn(SlateQ, obvious, FitOptions(), config)
    assert policy.serving is not None
    restored = SlateQPolicy.restore(policy.serving, policy.config(), policy.tensors())
    tried = PolicyValidation(obvious, 24, "cpu")
    assert tried.mean_return(restored) == tried.mean_return(policy) == 12.0


@torch.no_grad()
def test_what_the_users_choose_after_a_step_is_kept_with_it(obvious: World) -> None:
    learner = collected(obvious, choice="users", return_steps=2)
    drawn = learner.replay.sample(32)
    likes = (drawn.next_observation["candidates"] >= 5) == (drawn.next_observation["profile"] > 0.5)
    assert torch.equal(drawn.last_extra["later"] > 0, likes)


def test_settings_and_worlds_that_cannot_be_are_named(obvious: World) -> None:
    for name, value, known in (
        ("target", "td", "q-learning or sarsa"),
        ("choice", "oracle", "learned or users"),
        ("competition", "duel", "independent or logit"),
        ("search", "lp", "top-k or greedy or exact"),
    ):
        with pytest.raises(PolicyError, match=f"{name}='{value}'; choose {known}"):
            SlateQConfig(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match="world 'tiny' has no user model to choose by; take choice='learned'"):
        collected(replace(obvious, user_model=None), choice="users")


def test_a_model_that_guesses_no_state_is_named(obvious: World) -> None:
    class Silent(type(obvious.user_model)):  # type: ignore[misc]
        infer = UserSimulator.infer

    with pytest.raises(PolicyError, match=r"choice='users' needs `infer`.* of Silent; take choice='learned'"):
        UsersChoice(Silent(), obvious)
