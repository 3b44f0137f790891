"""`lm-ranker`: it learns, is kept as what was trained alone, and reads a history again only when it has changed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recloop.agents import FitOptions, Observed, load_policy, make_policy, save_policy
from recloop.agents.language.ranker import LanguageRanker
from recloop.agents.language.tuning import TuningConfig
from recloop.agents.transfer.transferred import transferred
from recloop.encoders.base.errors import EncoderError, PolicyError
from recloop.envs.logs.sequences import Sequences
from recloop.envs.world.world import World

METHODS = ("none", "head", "top", "all", "lora", "adalora", "ia3", "prefix")
Tiny = Callable[..., Path]


def fitted(
    world: World, folder: Path, method: str = "lora", seed: int = 0, steps: int = 3, **more: Any
) -> LanguageRanker:
    settings = {"model": str(folder), "tuning.method": method, "tuning.batch": 8, "tuning.layers": 1, **more}
    made = make_policy("lm-ranker", world, FitOptions(seed=seed, steps=steps, settings=settings))
    assert isinstance(made, LanguageRanker)
    return made


@pytest.fixture(scope="module")
def encoder(tiny: Tiny) -> Path:
    return tiny("encoder")


@pytest.mark.parametrize("method", METHODS)
def test_it_is_kept_as_what_was_trained_and_comes_back_the_same(
    method: str, world: World, encoder: Path, tmp_path: Path
) -> None:
    before = torch.random.get_rng_state()
    policy = fitted(world, encoder, method)
    assert torch.equal(before, torch.random.get_rng_state())
    save_policy(policy, tmp_path / "policy")
    loaded = load_policy(tmp_path / "policy")
    observation = {"history": world.users.history}
    assert torch.equal(policy.scores(observation), loaded.scores(observation))
    trained, total = policy.parameter_counts
    assert (trained == 0) == (method == "none")
    if method in ("none", "head", "ia3", "prefix"):
        assert trained < total / 4
    people = [Observed(history=[world.catalogue.ids[3]]), Observed()]
    assert policy.recommend_many(people, 4) == loaded.recommend_many(people, 4)


@pytest.mark.parametrize("method", ["all", "lora", "adalora"])
def test_equal_seeds_give_equal_weights(method: str, world: World, encoder: Path) -> None:
    mine, theirs = (fitted(world, encoder, method).tensors() for _ in range(2))
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    other = fitted(world, encoder, method, seed=1).tensors()
    assert not torch.equal(mine["items"], other["items"])


def test_who_likes_red_things_is_shown_red_things(world: World, encoder: Path) -> None:
    """Odd users consume things of odd rows, which are red, and even users blue ones."""
    users, rng = len(world.users), np.random.default_rng(0)
    items = np.concatenate([rng.permutation(12)[:8] * 2 + user % 2 for user in range(users)])
    feedback = np.ones((8 * users, len(world.signals)), dtype=np.float32)
    offsets = np.arange(users + 1) * 8
    log = Sequences(24, offsets, items, feedback, np.ones_like(feedback, dtype=bool))
    learnt = replace(world, sequences=log)
    history = torch.tensor([[1, 3, 5], [0, 2, 4]])
    right = torch.arange(24) % 2 == torch.tensor([[1], [0]])
    settings: dict[str, Any] = {"tuning.batch": 16, "tuning.learning_rate": 2e-3, "steps": 25}
    for method, least in (("all", 0.95), ("lora", 0.95)):
        best = fitted(learnt, encoder, method, **settings).scores({"history": history}).topk(6, dim=1).indices
        assert float(right.gather(1, best).float().mean()) >= least, method


def test_a_decoder_without_a_padding_token_reads_texts_too(world: World, tiny: Tiny) -> None:
    policy = fitted(world, tiny("decoder", pad=False), "lora", pooling="last")
    assert torch.isfinite(policy.scores({"history": world.users.history})).all()


def test_only_changed_histories_are_read_again(world: World, encoder: Path) -> None:
    policy = fitted(world, encoder, "none")
    n = len(world.catalogue)
    history = torch.tensor([[n, n, 1, 2], [n, 1, 2, 3], [n, n, n, 1]])
    first = policy.scores({"history": history})
    assert policy._recent.made == 3
    history[2] = torch.tensor([n, n, 1, 4])
    again = policy.scores({"history": history})
    assert policy._recent.made == 4
    assert torch.equal(first[:2], again[:2])
    assert not torch.equal(first[2], again[2])


def test_a_long_history_is_cut_at_its_oldest_and_counted(world: World, encoder: Path) -> None:
    """A title and its semicolon are four tokens; of 20, two are the model's own, and four titles fit."""
    texts = fitted(world, encoder, "none", max_tokens=20, title_tokens=8)._loaded(torch.device("cpu"))[1].history
    newest = torch.arange(10).expand(2, -1).clone()
    newest[1, :8] = len(world.catalogue)
    told = texts.tokens(newest)
    assert (texts.read, texts.cut) == (2, 1)
    assert told.counts.tolist() == [16, 8]
    alone = texts.tokens(torch.tensor([[6, 7, 8, 9]]))
    assert torch.equal(told.ids[0], alone.ids[0])


def test_new_users_and_new_items_are_served(world: World, encoder: Path) -> None:
    counts = world.catalogue.popularity.clone() + 1
    counts[5] = 0
    cold = replace(world, catalogue=replace(world.catalogue, popularity=counts))
    policy = fitted(cold, encoder, "none")
    assert torch.isfinite(policy.scores({"history": torch.full((1, 4), 24)})).all()
    popularity = policy.kept["popularity"]
    known = torch.cat([popularity[:5], popularity[6:]])
    assert known.min() <= popularity[5] <= known.max()


def test_what_was_fine_tuned_on_another_model_is_refused(world: World, tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny("encoder", seed=5)
    save_policy(fitted(world, folder), tmp_path / "policy")
    (folder / "model.safetensors").write_bytes((tiny("encoder", seed=6) / "model.safetensors").read_bytes())
    with pytest.raises(PolicyError, match=r"fine-tuned on another .* train anew"):
        load_policy(tmp_path / "policy")


def test_a_policy_for_another_catalogue_is_refused(world: World, encoder: Path) -> None:
    policy = fitted(world, encoder, "none")
    other = replace(world, catalogue=replace(world.catalogue, ids=tuple(f"x{i}" for i in range(24))))
    serving = make_policy("popularity", other).serving
    assert serving is not None
    with pytest.raises(PolicyError, match="another catalogue than these 24 items"):
        LanguageRanker.restore(serving, policy.config(), policy.tensors())


def test_a_log_that_teaches_nothing_ends_in_one_line(world: World, encoder: Path) -> None:
    equal = replace(world, catalogue=replace(world.catalogue, texts=("same",) * 24))
    with pytest.raises(PolicyError, match=r"24 items .* have one text, 'same'"):
        fitted(equal, encoder)
    few = replace(world, users=replace(world.users, part=torch.full_like(world.users.part, 3)))
    with pytest.raises(PolicyError, match=r"has 0 train users .* tuning.method=none"):
        fitted(few, encoder)
    one = replace(world, sequences=replace(world.sequences, items=world.sequences.items * 0))
    with pytest.raises(PolicyError, match="consumed one item only"):
        fitted(one, encoder)


def test_a_model_that_cannot_be_had_ends_in_one_line(
    world: World, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PolicyError, match=r"tuning.bits=4 needs a CUDA device and bitsandbytes"):
        fitted(world, encoder, **{"tuning.bits": 4})
    with pytest.raises(PolicyError, match="tokens are left for a history"):
        fitted(world, encoder, max_tokens=5)
    with pytest.raises(PolicyError, match="method=lorra"):
        TuningConfig(method="lorra")  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match=r"tuning.layers=3 of a model that has 2"):
        fitted(world, encoder, "top", **{"tuning.layers": 3})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(EncoderError, match="no folder and cannot be had from the hub"):
        fitted(world, Path("nobody/nothing"))
    monkeypatch.setattr("recloop.agents.language.bases.free_bytes", lambda device: 1000.0)
    with pytest.raises(PolicyError, match=r"parameters x 4 bytes .* a model of up to 250 parameters would fit"):
        fitted(world, encoder)


def test_without_peft_the_way_out_is_told(world: World, encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(PolicyError, match=r"method=lora needs peft; pip install 'recloop\[text\]'"):
        fitted(world, encoder)
    assert fitted(world, encoder, "top").parameter_counts[0] > 0


def test_grpo_tunes_the_map_on_top_of_the_language_model(world: World, encoder: Path, tmp_path: Path) -> None:
    start = fitted(world, encoder)
    start.save(tmp_path / "start")
    settings = {"start": str(tmp_path / "start"), "steps": 40, "users": 2, "group": 2, "validation_episodes": 4}
    moved: list[float] = []

    def log(tag: str, value: float, step: int) -> None:
        moved.extend([value] if tag == "train/kl" else [])

    tuned = make_policy("grpo", world, FitOptions(settings={**settings, "learning_rate": 0.1}, log=log))
    assert max(moved) > 0
    save_policy(tuned, tmp_path / "tuned")
    history = {"history": world.users.history}
    torch.testing.assert_close(load_policy(tmp_path / "tuned").scores(history), tuned.scores(history))


@pytest.mark.parametrize("method", ["none", "lora"])
def test_it_is_taken_to_another_catalogue_by_its_texts(method: str, world: World, encoder: Path) -> None:
    policy = fitted(world, encoder, method)
    n = len(world.catalogue)
    back = tuple(reversed(world.catalogue.titles))
    other = replace(world, name="other", catalogue=replace(world.catalogue, titles=back, texts=back))
    moved, history = transferred(policy, other), world.users.history[:4]
    assert isinstance(moved, LanguageRanker)
    assert not moved.kept["popularity"].any()
    same = transferred(policy, world).scores({"history": history})  # type: ignore[attr-defined]
    mirrored = torch.where(history < n, n - 1 - history, history)
    torch.testing.assert_close(moved.scores({"history": mirrored}), same.flip(1), rtol=1e-4, atol=1e-4)
    if method == "none":
        return
    few = transferred(policy, other, FitOptions(steps=2), users=12)
    assert set(few.tensors()) == set(policy.tensors())
    assert transferred(policy.afresh(0), other).tensors().keys() == moved.tensors().keys()
    with pytest.raises(PolicyError, match=r"tuned by lora on the language model .*; leave these out, or train anew"):
        transferred(policy, other, FitOptions(settings={"model": "another"}), users=12)
