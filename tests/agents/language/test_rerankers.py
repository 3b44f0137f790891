"""`lm-classifier` and `lm-verbaliser`: they learn, order a retriever's candidates, and come back as they were."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recloop.agents import FitOptions, Observed, Policy, load_policy, make_policy, save_policy
from recloop.agents.language.candidates import observation_at
from recloop.agents.language.examples import NextItems
from recloop.agents.language.letters import LetterModel
from recloop.agents.language.verbaliser import LanguageVerbaliser
from recloop.agents.policy import ScoringPolicy
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.observation import Observation
from recloop.envs.logs.sequences import Sequences
from recloop.envs.simulation.core import Core
from recloop.envs.world.world import World

Tiny = Callable[..., Path]
SMALL = {"candidates": 6, "window": 4, "title_tokens": 8}
LANES, K = 5, 3


def made(kind: str, world: World, folder: Path, steps: int = 2, **more: Any) -> ScoringPolicy:
    settings = {"model": str(folder), "tuning.batch": 8, **SMALL, **more}
    policy = make_policy(kind, world, FitOptions(steps=steps, settings=settings))
    assert isinstance(policy, ScoringPolicy)
    return policy


@pytest.fixture(scope="module")
def encoder(tiny: Tiny) -> Path:
    return tiny("encoder")


@pytest.fixture(scope="module")
def decoder(tiny: Tiny) -> Path:
    return tiny("decoder", pad=False)


@pytest.fixture(scope="module", params=["classifier", "zero-shot", "few-shot", "lora", "prefix"])
def policy(request: pytest.FixtureRequest, world: World, encoder: Path, decoder: Path) -> ScoringPolicy:
    if request.param == "classifier":
        return made("lm-classifier", world, encoder, **{"tuning.method": "lora"})
    shots = {"shots": 2} if request.param == "few-shot" else {}
    method = request.param if request.param in ("lora", "prefix") else "none"
    return made("lm-verbaliser", world, decoder, **{"tuning.method": method}, **shots)


def observed(world: World) -> Observation:
    keys = ("state", "history", "action_mask")
    return Core(world, batch=LANES, slate_size=K, users="evaluate", seed=5, keys=keys).observe()


def log_of_colours(world: World) -> World:
    """Odd users consume things of odd rows, which are red, and even users blue ones."""
    users, rng = len(world.users), np.random.default_rng(0)
    items = np.concatenate([rng.permutation(12)[:8] * 2 + user % 2 for user in range(users)])
    feedback = np.ones((8 * users, len(world.signals)), dtype=np.float32)
    given = np.ones_like(feedback, dtype=bool)
    return replace(world, sequences=Sequences(24, np.arange(users + 1) * 8, items, feedback, given))


def test_slates_are_the_best_candidates_and_keep_to_the_mask(policy: ScoringPolicy, world: World) -> None:
    observation = observed(world)
    before = torch.random.get_rng_state()
    slate, _ = policy.act(observation, None, K, Core(world, batch=LANES, slate_size=K).draw())
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(len(set(row)) == K for row in slate.tolist())
    scores = policy.source.scores(observation)  # type: ignore[attr-defined]
    best = scores.masked_fill(~observation["action_mask"], -torch.inf).topk(6, dim=1).indices
    assert all(set(row) <= set(near) for row, near in zip(slate.tolist(), best.tolist(), strict=True))
    few = torch.zeros_like(observation["action_mask"])
    few[:, [3, 8]] = True
    slate, _ = policy.act({**observation, "action_mask": few}, None, K, Core(world, batch=LANES, slate_size=K).draw())
    assert all(set(row) == {3, 8, 24} for row in slate.tolist())


def test_it_comes_back_as_it_was(policy: ScoringPolicy, world: World, tmp_path: Path) -> None:
    save_policy(policy, tmp_path / "policy")
    loaded = load_policy(tmp_path / "policy")
    assert isinstance(loaded, ScoringPolicy)
    observation = observed(world)
    assert torch.equal(policy.scores(observation), loaded.scores(observation))
    people = [Observed(history=[world.catalogue.ids[3]]), Observed()]
    assert policy.recommend_many(people, 4) == [loaded.recommend(person, 4) for person in people]


def test_a_lane_that_did_not_change_is_not_read_again(policy: ScoringPolicy, world: World) -> None:
    recent, observation = policy._recent, observed(world)  # type: ignore[attr-defined]
    first = policy.scores(observation)
    read = recent.made
    assert torch.equal(policy.scores(observation), first)
    assert recent.made == read


def test_a_classifier_learns_what_is_taken_of_what_is_shown(world: World, encoder: Path) -> None:
    """Of what was shown everybody took the red things and left the blue ones."""
    slates = world.sequences.slates
    assert slates is not None
    answers = np.repeat((slates.items % 2).astype(np.float32)[..., None], slates.answers.shape[2], axis=2)
    given = np.ones_like(slates.given)
    shown = replace(world, sequences=replace(world.sequences, slates=replace(slates, answers=answers, given=given)))
    settings = {"tuning.method": "all", "tuning.learning_rate": 1e-3, "tuning.head_rate": 1e-2, "tuning.batch": 16}
    policy = made("lm-classifier", shown, encoder, steps=25, retriever="popularity", **{**settings, "candidates": 24})
    observation = {"history": world.users.history[:2], "action_mask": torch.ones(2, 24, dtype=torch.bool)}
    assert float((policy.scores(observation).topk(12, dim=1).indices % 2).float().mean()) >= 0.9


def test_a_decoder_learns_which_letters_are_taken(world: World, decoder: Path) -> None:
    """Everybody takes red things, and the candidates are the same for all: four letters are right."""
    items = np.concatenate([np.random.default_rng(user).permutation(4) * 2 + 1 for user in range(60)])
    feedback = np.ones((240, len(world.signals)), dtype=np.float32)
    log = Sequences(24, np.arange(61) * 4, items, feedback, np.ones_like(feedback, dtype=bool))
    popular = torch.full((24,), 1.0)
    popular[:8] = 9.0
    learnt = replace(world, sequences=log, catalogue=replace(world.catalogue, popularity=popular))
    settings = {"tuning.method": "all", "tuning.learning_rate": 3e-3, "retriever": "popularity", "candidates": 8}
    policy = made("lm-verbaliser", learnt, decoder, steps=20, **settings)
    observation = {"history": torch.full((1, 4), 24), "action_mask": torch.ones(1, 24, dtype=torch.bool)}
    assert set(policy.scores(observation).topk(4, dim=1).indices[0].tolist()) == {1, 3, 5, 7}


def test_shared_beginnings_change_nothing(world: World, decoder: Path) -> None:
    policy = made("lm-verbaliser", world, decoder, shots=1, **{"tuning.method": "none"})
    assert isinstance(policy, LanguageVerbaliser)
    model, prompts = policy._loaded(torch.device("cpu"))
    assert isinstance(model, LetterModel)
    assert model.plain
    newest, rows = torch.tensor([[24, 1, 2, 3], [24, 24, 24, 24]]), torch.arange(12).view(2, 6)
    shared = model.ordered(prompts, newest, rows, batch=2)
    alone = torch.cat([model(prompts.whole(newest[i : i + 1], rows[i : i + 1])) for i in range(2)])
    assert torch.allclose(shared, alone, atol=1e-4)


def test_a_prompt_longer_than_the_context_loses_the_oldest_and_it_is_counted(world: World, tiny: Tiny) -> None:
    rows = torch.arange(6).expand(2, -1)
    histories = torch.tensor([[1, 2, 3, 4, 5, 6], [24, 24, 24, 24, 5, 6]])
    roomy = made("lm-verbaliser", world, tiny("decoder"), **{"tuning.method": "none", "window": 6})
    assert isinstance(roomy, LanguageVerbaliser)
    longest = roomy._loaded(torch.device("cpu"))[1].whole(histories, rows).ids.shape[1]
    narrow = tiny("decoder", positions=longest - 1)
    policy = made("lm-verbaliser", world, narrow, **{"tuning.method": "none", "window": 6})
    assert isinstance(policy, LanguageVerbaliser)
    _, prompts = policy._loaded(torch.device("cpu"))
    whole = prompts.whole(histories, rows)
    assert policy.prompts == (2, 1)
    assert whole.ids.shape[1] == longest - 4, "a title and its semicolon are four tokens"
    told = whole.ids[0][whole.held[0]].tolist()
    titles = prompts.history.titles
    for item, there in ((1, False), (2, True), (6, True)):
        title = titles.ids[item][titles.held[item]].tolist()
        assert any(told[i : i + len(title)] == title for i in range(len(told))) == there
    with pytest.raises(PolicyError, match=r"tokens are left for a history.* take a model that reads more"):
        made("lm-verbaliser", world, tiny("decoder", positions=longest - 20), **{"tuning.method": "none"})


def test_moments_of_the_log_are_observed_as_the_loop_would(world: World) -> None:
    moments = NextItems(world, 4, 0.0, np.random.default_rng(0))
    moment = moments.draw(6)
    observation = observation_at(world, moment)
    for lane, (user, end) in enumerate(zip(moment.users, moment.ends, strict=True)):
        items, _ = world.sequences.of(int(user))
        assert int(items[end]) == int(moment.target[lane])
        assert set((~observation["action_mask"][lane]).nonzero()[:, 0].tolist()) == set(items[:end].tolist())


def test_one_class_alone_ends_in_one_line(world: World, encoder: Path) -> None:
    slates = world.sequences.slates
    assert slates is not None
    answers = np.ones_like(slates.answers)
    taken = replace(world, sequences=replace(world.sequences, slates=replace(slates, answers=answers)))
    with pytest.raises(PolicyError, match=r"none was left: one class alone .*negatives_from=catalogue"):
        made("lm-classifier", taken, encoder)
    unseen = log_of_colours(world)
    with pytest.raises(PolicyError, match="has no exposures; take catalogue or auto"):
        made("lm-classifier", unseen, encoder, negatives_from="shown")


def test_settings_that_do_not_go_together_end_in_one_line(world: World, encoder: Path, decoder: Path) -> None:
    with pytest.raises(PolicyError, match="candidates=21 of lm-verbaliser; take 2 to 20"):
        made("lm-verbaliser", world, decoder, candidates=21)
    with pytest.raises(PolicyError, match="has no head of its own"):
        made("lm-verbaliser", world, decoder, **{"tuning.method": "head"})
    with pytest.raises(PolicyError, match="lm-classifier has to be trained"):
        made("lm-classifier", world, encoder, **{"tuning.method": "none"})
    with pytest.raises(PolicyError, match="'random' has no scores of all items"):
        made("lm-classifier", world, encoder, retriever="random")


def test_another_base_model_is_refused(world: World, tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny("decoder", seed=3)
    save_policy(made("lm-verbaliser", world, folder, **{"tuning.method": "lora"}), tmp_path / "policy")
    (folder / "model.safetensors").write_bytes((tiny("decoder", seed=4) / "model.safetensors").read_bytes())
    with pytest.raises(PolicyError, match=r"fine-tuned on another .* train anew"):
        load_policy(tmp_path / "policy")


def test_a_ranker_can_be_the_retriever_and_is_kept_along(world: World, encoder: Path, tmp_path: Path) -> None:
    ranker = make_policy("lm-ranker", world, FitOptions(settings={"model": str(encoder), "tuning.method": "none"}))
    save_policy(ranker, tmp_path / "ranker")
    policy: Policy = made("lm-classifier", world, encoder, retriever=str(tmp_path / "ranker"))
    save_policy(policy, tmp_path / "policy")
    person = Observed(history=[world.catalogue.ids[3]])
    assert load_policy(tmp_path / "policy").recommend(person, 4) == policy.recommend(person, 4)
