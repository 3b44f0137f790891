"""A policy that knows its items by their texts alone acts in another world by the same weights; others are refused."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recloop.agents.policy import FitOptions, Policy
from recloop.agents.registry import load_policy, make_policy, save_policy
from recloop.agents.sequence import content
from recloop.agents.sequence.policy import SASRecPolicy
from recloop.agents.transfer.transferred import few_users, transferred
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.observation import Observation
from recloop.envs.truth.catalogue import CLIPS, RECIPES, Theme
from recloop.envs.truth.logs import lived_world
from recloop.envs.truth.worlds import truth_world
from recloop.envs.world.world import World
from recloop.experiments.ranking.evaluator import rank_all
from recloop.experiments.ranking.questions import ranking_task

MEAN = {"items": ("text",), "backbone": "mean", "dim": 384, "learning_rate": 1e-3, "epochs": 3}


def lived(name: str, theme: Theme, seed: int) -> World:
    world = truth_world("clicks", users=200, items=80, seed=seed, topics=6, theme=theme)
    return lived_world(replace(world, name=name, consumes_twice=False), seed=seed)


@pytest.fixture(scope="module")
def clips() -> World:
    return lived("clips", CLIPS, 0)


@pytest.fixture(scope="module")
def recipes() -> World:
    return lived("recipes", RECIPES, 1)


@pytest.fixture(scope="module")
def learned(clips: World) -> SASRecPolicy:
    policy = make_policy("sasrec", clips, FitOptions(settings=MEAN))
    assert isinstance(policy, SASRecPolicy)
    return policy


def seen(world: World, histories: Any) -> Observation:
    n = len(world.catalogue)
    rows = torch.full((len(histories), world.users.history.shape[1]), n)
    for lane, history in enumerate(histories):
        rows[lane, len(rows[lane]) - len(history) :] = torch.tensor(history)
    return {"history": rows}


def weights(policy: Policy) -> Mapping[str, Tensor]:
    return {name: weight for name, weight in policy.tensors().items() if name not in ("items", "bias")}


def ndcg(world: World, *policies: Policy) -> list[float]:
    lists = rank_all([(policy, 0) for policy in policies], world, ranking_task(world, "time"), 10)
    return [one.figures(10)["ndcg"] for one in lists]


@pytest.mark.parametrize("backbone", ["mean", "sasrec", "bert4rec", "gru"])
def test_zero_shot_keeps_the_weights_and_no_item(clips: World, recipes: World, backbone: str) -> None:
    settings = {**MEAN, "backbone": backbone, "dim": 16, "epochs": 1}
    policy = make_policy("sasrec", clips, FitOptions(settings=settings))
    moved = transferred(policy, recipes)
    assert isinstance(moved, SASRecPolicy)
    ours, theirs = weights(policy), weights(moved)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not moved.model.bias.any()
    assert moved.scores(seen(recipes, [[0, 5], []])).shape == (2, len(recipes.catalogue))


def test_scores_depend_on_texts_alone(learned: SASRecPolicy, recipes: World) -> None:
    n = len(recipes.catalogue)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    texts = tuple(recipes.catalogue.texts[row] for row in order.tolist())
    turned = replace(recipes, catalogue=replace(recipes.catalogue, texts=texts))
    place = torch.empty(n, dtype=torch.int64)
    place[order] = torch.arange(n)  # where each text lies now
    history = [3, 17, 40]
    plain = transferred(learned, recipes).scores(seen(recipes, [history]))  # type: ignore[attr-defined]
    permuted = transferred(learned, turned).scores(seen(turned, [place[history].tolist()]))  # type: ignore[attr-defined]
    torch.testing.assert_close(permuted, plain[:, order], rtol=1e-4, atol=1e-4)


def test_zero_shot_beats_popularity_and_shuffled_texts_fall_to_chance(learned: SASRecPolicy, recipes: World) -> None:
    shuffled = np.random.default_rng(0).permutation(np.array(recipes.catalogue.texts)).tolist()
    faulty = replace(recipes, catalogue=replace(recipes.catalogue, texts=tuple(shuffled)))
    (chance,) = ndcg(recipes, make_policy("random", recipes))
    zero, popular = ndcg(recipes, transferred(learned, recipes), make_policy("popularity", recipes))
    (fault,) = ndcg(faulty, transferred(learned, faulty))
    assert zero > popular + 0.03 > chance
    assert abs(fault - chance) < 0.4 * (zero - chance)


def test_few_users_are_drawn_by_the_seed_the_fewer_among_the_more(recipes: World) -> None:
    five, twenty = (set(few_users(recipes, k, 3).users.rows("train").tolist()) for k in (5, 20))
    assert (len(five), len(twenty)) == (5, 20)
    assert five < twenty
    assert five != set(few_users(recipes, 5, 4).users.rows("train").tolist())
    met = few_users(recipes, 5, 3)
    assert met.catalogue.popularity.sum() == met.sequences.lengths[sorted(five)].sum()
    assert torch.equal(met.users.rows("evaluate"), recipes.users.rows("evaluate"))


def test_a_policy_learns_from_the_users_it_is_given_alone(learned: SASRecPolicy, recipes: World) -> None:
    options = FitOptions(seed=1, settings={"epochs": 1})
    few = transferred(learned, recipes, options, users=6)
    met = few_users(recipes, 6, 1)
    others = np.setdiff1d(np.arange(len(recipes.users)), met.users.rows("train").numpy())
    items = recipes.sequences.items.copy()
    for user in others:
        items[recipes.sequences.offsets[user] : recipes.sequences.offsets[user + 1]] = 0
    blind = replace(recipes, sequences=replace(recipes.sequences, items=items))
    again = transferred(learned, blind, options, users=6)
    assert all(torch.equal(few.tensors()[name], again.tensors()[name]) for name in few.tensors())
    assert not torch.equal(few.tensors()["blocks.0.change"], learned.tensors()["blocks.0.change"])


def test_more_users_than_there_are_and_none_are_refused(learned: SASRecPolicy, recipes: World) -> None:
    for users in (-1, 10_000):
        with pytest.raises(PolicyError, match=rf"users={users} of the \d+ train users of world 'recipes'.*choose 1 to"):
            transferred(learned, recipes, users=users)


def test_a_folder_is_transferred_and_serves_the_other_world(
    learned: SASRecPolicy, recipes: World, tmp_path: Path
) -> None:
    save_policy(learned, tmp_path / "clips")
    moved = transferred(tmp_path / "clips", recipes)
    save_policy(moved, tmp_path / "recipes")
    kept = make_policy(tmp_path / "recipes", recipes)
    assert all(torch.equal(value, kept.tensors()[name]) for name, value in moved.tensors().items())
    assert torch.equal(kept.tensors()["items"], transferred(learned, recipes).tensors()["items"])
    back = transferred(kept, recipes)  # and may go on from there
    assert all(torch.equal(value, back.tensors()[name]) for name, value in kept.tensors().items())


@pytest.mark.parametrize("items", [("ids",), ("ids", "text"), ("world",)])
def test_ids_are_refused(clips: World, recipes: World, items: tuple[str, ...]) -> None:
    policy = make_policy("sasrec", clips, FitOptions(settings={"items": items, "epochs": 1, "dim": 8}))
    with pytest.raises(PolicyError, match=rf"by {', '.join(items)}, which another world does not.*--set items=text"):
        transferred(policy, recipes)
    with pytest.raises(PolicyError, match=r"knows the items of its own world.*--set items=text, or lm-ranker"):
        transferred(make_policy("popularity", clips), recipes)


def test_another_language_model_is_refused(
    learned: SASRecPolicy, recipes: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_policy(learned, tmp_path / "clips")
    monkeypatch.setattr(content, "model_fingerprint", lambda folder, settings: "another")
    with pytest.raises(PolicyError, match=r"read by another language model.*bring that model back, or train it anew"):
        transferred(tmp_path / "clips", recipes)


def test_what_was_tuned_of_single_items_or_has_no_map_is_refused(learned: SASRecPolicy, recipes: World) -> None:
    config, tensors = learned.config(), dict(learned.tensors())
    tensors["items"] = tensors["items"] * 1.1
    tuned = SASRecPolicy.restore(learned._serving(), config, tensors)
    with pytest.raises(PolicyError, match=r"tuned one by one.*tune it in the other world"):
        transferred(tuned, recipes)
    config.pop("read")
    old = {name: value for name, value in learned.tensors().items() if not name.startswith("projections")}
    with pytest.raises(PolicyError, match=r"kept no map of its texts; train it anew"):
        transferred(SASRecPolicy.restore(learned._serving(), config, old), recipes)


def test_settings_that_do_not_fit_the_weights_are_refused(learned: SASRecPolicy, recipes: World) -> None:
    with pytest.raises(PolicyError, match=r"dim=8 does not fit the weights.*dim=384; leave it out"):
        transferred(learned, recipes, FitOptions(settings={"dim": 8}), users=5)


def test_a_folder_of_another_world_is_still_refused_without_transfer(
    learned: SASRecPolicy, recipes: World, tmp_path: Path
) -> None:
    save_policy(learned, tmp_path / "clips")
    assert load_policy(tmp_path / "clips").name == "sasrec"
    with pytest.raises(PolicyError, match=r"was made in world 'clips'"):
        make_policy(tmp_path / "clips", recipes)
