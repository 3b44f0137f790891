"""The ablation of the encoder: splits worked out by hand, planted tastes, units that resume, the table kept."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recloop.encoders.base.errors import RecloopError
from recloop.encoders.state.batches import NextItemConfig
from recloop.envs.logs.sequences import Sequences
from recloop.experiments.comparison.intervals import Interval, by_user
from recloop.experiments.studies.ablation import study as ablate_encoder
from recloop.experiments.studies.ablation.scorers import RECIPES, UNTRAINED, Content, fit, scorer, scores_of
from recloop.experiments.studies.ablation.splits import (
    COLD_ITEMS,
    COLD_ITEMS_IN_ALL,
    COLD_USERS,
    KNOWN_OF_COLD_USERS,
    Limits,
    Questions,
    answer,
    cold_parts,
    experiment,
    questions,
    without_items,
)
from recloop.experiments.studies.ablation.study import AblationConfig, AblationUnitConfig, main
from recloop.experiments.studies.ablation.table import (
    COLUMNS,
    AblationLine,
    AblationUnit,
    nested_bootstrap,
    pool,
    verdict,
    write_lines,
)

SHORT = NextItemConfig(epochs=6, batch_users=16, window=20, group_sizes=(1,))


def log_of(histories: list[list[int]], n: int) -> Sequences:
    """Users who consumed these items; the one signal is the place in the history, from 1."""
    items = np.array([item for history in histories for item in history], dtype=np.int64)
    places = [place + 1.0 for history in histories for place in range(len(history))]
    feedback = np.array(places, dtype=np.float32)[:, None]
    offsets = np.concatenate([[0], np.cumsum([len(history) for history in histories])]).astype(np.int64)
    return Sequences(n, offsets, items, feedback, np.ones(feedback.shape, dtype=bool))


def planted(users: int = 120, items: int = 160, length: int = 16) -> tuple[Sequences, Content]:
    """Two kinds of items, told apart by their text; every user keeps to one kind."""
    random = np.random.default_rng(0)
    kind = np.arange(items) % 2
    histories = [random.choice(np.flatnonzero(kind == u % 2), length, replace=False).tolist() for u in range(users)]
    text = random.normal(size=(items, 8)) * 0.3
    text[:, 0] += 2.0 * kind - 1
    content = Content(torch.from_numpy(text).float(), None, None, np.full(items, -1), ((0.0, 20.0),))
    return log_of(histories, items), content


def test_a_question_holds_what_came_before() -> None:
    log = log_of([[3, 1, 4, 0], [2, 2]], 5)
    known, everything = np.array([True, False, True, True, True]), np.ones(5, dtype=bool)
    users, places = np.array([0, 0, 1]), np.array([3, 2, 1])
    asked = questions(log, users, places, known, everything, Limits(history=2))
    assert asked.targets.tolist() == [0, 4, 2]
    assert asked.history.tolist() == [[3, 4], [5, 3], [5, 2]], "item 1 is not known; 5 is an empty place"
    assert asked.feedback[..., 0].tolist() == [[1, 3], [0, 1], [0, 1]]
    seen = [np.flatnonzero(row).tolist() for row in asked.seen]
    assert seen == [[1, 3, 4], [1, 3], []], "what is not known is not ranked either; a repeated target is"


def test_the_standard_arm_holds_out_last_items() -> None:
    found = experiment(log_of([[3, 1, 4], [2], [0, 1]], 5), "standard", 0, Limits(history=2))
    assert found.train.items.tolist() == [3, 1, 0]
    assert found.train.lengths.tolist() == [2, 0, 1]
    asked = found.questions["all"]
    assert asked.users.tolist() == [0, 2], "one item is no history"
    assert asked.targets.tolist() == [4, 1]


@pytest.mark.parametrize("seed", [0, 1])
def test_nothing_cold_is_trained_on(seed: int) -> None:
    log, _ = planted()
    users, items = cold_parts(log, np.random.default_rng([seed, 1]))
    assert (len(users), len(items)) == (18, 16)
    found = experiment(log, "cold", seed, Limits())
    assert not np.isin(found.train.items, items).any()
    warm_users = np.setdiff1d(np.arange(log.users), users)
    assert found.train.users == len(warm_users)
    for row, user in enumerate(warm_users.tolist()):
        mine = log.of(user)[0]
        assert found.train.of(row)[0].tolist() == mine[~np.isin(mine, items)].tolist()

    asked = found.questions[COLD_USERS]
    assert np.isin(asked.users, users).all()
    for user, target, history in zip(asked.users.tolist(), asked.targets, asked.history, strict=True):
        mine = log.of(user)[0]
        mine = mine[~np.isin(mine, items)]
        assert history[history < 160].tolist() == mine[:KNOWN_OF_COLD_USERS].tolist()
        assert target == mine[KNOWN_OF_COLD_USERS]

    asked = found.questions[COLD_ITEMS]
    assert np.isin(asked.targets, items).all()
    assert np.isin(asked.users, warm_users).all()
    assert np.flatnonzero(asked.candidates).tolist() == items.tolist()
    assert not np.isin(asked.history.numpy(), items).any()
    assert found.questions[COLD_ITEMS_IN_ALL].candidates.all()
    count = 0
    for user in warm_users.tolist():
        known = False
        for item in log.of(user)[0].tolist():
            count += known and item in items
            known = known or item not in items
    assert len(asked.users) == count


def test_limits_hold() -> None:
    found = experiment(planted()[0], "cold", 0, Limits(users=7, targets=1, history=3))
    assert len(found.questions[COLD_USERS].users) == 7
    users = found.questions[COLD_ITEMS].users
    assert len(users) == len(np.unique(users)) <= 7
    assert found.questions[COLD_ITEMS].history.shape[1] == 3


def test_a_log_too_small_to_hold_anything_out_is_refused() -> None:
    with pytest.raises(RecloopError, match="too few to hold some out"):
        experiment(log_of([[0, 1], [1, 2]], 3), "cold", 0, Limits())


def test_without_items_keeps_the_order() -> None:
    found = without_items(log_of([[3, 1, 4], [1], [0, 3]], 5), np.array([False, True, False, False, False]))
    assert found.items.tolist() == [3, 4, 0, 3]
    assert found.offsets.tolist() == [0, 2, 2, 4]
    assert found.feedback[:, 0].tolist() == [1, 3, 1, 2]


def asked_for(target: int, seen: list[int], candidates: list[int], n: int) -> Questions:
    mask, ranked = np.zeros((1, n), dtype=bool), np.zeros(n, dtype=bool)
    mask[0, seen], ranked[candidates] = True, True
    return Questions(
        np.array([0]), np.array([target]), torch.full((1, 1), n), torch.zeros(1, 1, 1), mask, ranked
    )  # fmt: skip


def fixed(scores: list[float]) -> Any:
    return lambda history, feedback: torch.tensor([scores])


def test_what_was_seen_and_is_no_candidate_is_not_ranked() -> None:
    scores = [float(value) for value in range(40, 0, -1)]
    everything = list(range(40))
    found = answer(fixed(scores), asked_for(11, [], everything, 40))
    assert (found["recall"][0], found["ndcg"][0]) == (0, 0)
    found = answer(fixed(scores), asked_for(11, [0, 3], everything, 40))
    assert found["recall"][0] == 1
    assert found["ndcg"][0] == pytest.approx(1 / np.log2(11))
    assert answer(fixed(scores), asked_for(11, [], [11, 12], 40))["ndcg"][0] == 1


def test_ties_count_as_the_mean_of_their_orders() -> None:
    found = answer(fixed([1.0] * 40), asked_for(39, [], list(range(40)), 40))
    assert found["recall"][0] == pytest.approx(10 / 40)
    assert found["ndcg"][0] == pytest.approx(sum(1 / np.log2(rank + 1) for rank in range(1, 11)) / 40)
    ahead = [2.0] * 9 + [1.0] * 2 + [0.0] * 29
    assert answer(fixed(ahead), asked_for(9, [], list(range(40)), 40))["recall"][0] == pytest.approx(0.5)


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(RecloopError, match="no numbers"):
        answer(fixed([float("nan"), 1.0]), asked_for(0, [], [0, 1], 2))


def test_cold_items_are_found_by_true_text_alone() -> None:
    log, content = planted()
    made = experiment(log, "cold", 0, Limits())
    recall = {}
    for wrong in ("", "text"):
        encoder = fit(replace(RECIPES["text only"], wrong=wrong), content, made.train, 0, SHORT)
        asked = made.questions[COLD_ITEMS]
        recall[wrong] = by_user(answer(scores_of(encoder), asked)["recall"], asked.users).mean()
    assert recall[""] > 0.95
    assert recall["text"] < 0.85


def test_the_popular_and_the_alike_need_no_training() -> None:
    log, content = planted()
    made = experiment(log, "cold", 0, Limits())
    counts = np.bincount(made.train.items, minlength=160)
    popular = scorer("popularity", content, made.train, 0, SHORT)
    history, feedback = made.questions[COLD_USERS].history, made.questions[COLD_USERS].feedback
    assert popular(history, feedback)[0].tolist() == counts.tolist()
    asked = made.questions[COLD_ITEMS]
    cosine = scorer("MiniLM cosine (untrained)", content, made.train, 0, SHORT)
    assert by_user(answer(cosine, asked)["recall"], asked.users).mean() > 0.95
    with pytest.raises(RecloopError, match="needs a knowledge graph"):
        scorer("KG neighbours (untrained)", content, made.train, 0, SHORT)
    with pytest.raises(RecloopError, match="needs a knowledge graph"):
        scorer("KG only", content, made.train, 0, SHORT)
    with pytest.raises(RecloopError, match="did you mean"):
        scorer("KG onyl", content, made.train, 0, SHORT)


def unit_of(encoder: str, seed: int, recall: list[float]) -> AblationUnit:
    users = np.array([4, 4, 9])
    return AblationUnit(
        encoder, seed, {"all": {"users": users, "recall": np.array(recall), "ndcg": np.array(recall) / 2}}
    )


def test_figures_are_means_of_users_and_their_spread_over_seeds() -> None:
    units = [
        unit_of("text only", 0, [1, 0, 0]),  # user 4: 0.5, user 9: 0
        unit_of("text only", 1, [1, 1, 0]),
        unit_of("KG only", 0, [0, 0, 0]),
        unit_of("text + KG", 0, [1, 1, 1]),
    ]
    lines = pool(units)
    recall, ndcg = lines[:2]
    assert (recall.encoder, recall.label, ndcg.label) == ("text only", "Recall@10", "NDCG@10")
    assert (recall.value.mean, recall.value.low, recall.value.high, recall.seeds) == (0.375, 0.25, 0.5, 2)
    found = {(line.encoder, line.label): line for line in lines if line.minus}
    assert set(found) == {
        ("text + KG", f"{metric} minus {other}")
        for metric in ("Recall@10", "NDCG@10")
        for other in ("text only", "KG only")
    }
    line = found["text + KG", "Recall@10 minus text only"]
    assert (line.value.mean, line.seeds) == (0.75, 1), "only the seed that both have"
    assert (line.value.low, line.value.high) == (0.5, 1.0)
    assert verdict(line) == "better"


def test_a_part_whose_interval_holds_zero_adds_nothing() -> None:
    line = AblationLine("all", "+ LSTM", "Recall@10", Interval(0.01, -0.01, 0.03), 3, "+ patterns")
    assert verdict(line) == "adds nothing here (interval holds 0)"
    assert verdict(replace(line, value=Interval(-0.02, -0.03, -0.01))) == "worse"
    line = replace(line, encoder="+ fusion", minus="full, KG scrambled")
    assert line.label == "Recall@10 minus KG scrambled"
    assert verdict(line) == "not told apart (interval holds 0)"


def test_other_users_cannot_be_paired() -> None:
    other = unit_of("KG only", 0, [0, 0, 0])
    other.answers["all"]["users"][0] = 5
    with pytest.raises(RecloopError, match="asked about other users"):
        pool([other, unit_of("text + KG", 0, [1, 1, 1])])


def test_the_bootstrap_draws_users_with_their_seeds() -> None:
    weights = nested_bootstrap(np.array([7, 3, 7, 7]), draws=4000)
    assert np.allclose(weights.sum(1), 1)
    assert weights.shape == (4000, 4)
    both_seven = np.isclose(weights[:, 1], 0)
    assert both_seven.mean() == pytest.approx(0.25, abs=0.03), "user 3 is left out in one draw of four"
    sevens = weights[both_seven][:, [0, 2, 3]]
    assert sevens.mean(0) == pytest.approx([1 / 3] * 3, abs=0.03)
    assert sevens.std() > 0.1, "and a user's seeds are drawn again"


def test_rows_of_other_data_stay(tmp_path: Path) -> None:
    path = tmp_path / "results" / "table.csv"
    line = AblationLine("all", "ids only", "Recall@10", Interval(0.1, 0.05, 0.2), 3)
    write_lines(path, "ml-100k", [line], "first", "abc")
    write_lines(path, "ml-1m", [line], "second", "abc")
    write_lines(path, "ml-100k", [replace(line, seeds=4)], "third", "def")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["data"], row["seeds"], row["command"]) for row in rows] == [
        ("ml-1m", "3", "second"),
        ("ml-100k", "4", "third"),
    ]
    assert [rows[0][name] for name in ("mean", "low", "high")] == ["0.100000", "0.050000", "0.200000"]


def write_planted(folder: Path) -> Path:
    """`planted`, with a graph that tells the kinds apart, as atomic files."""
    folder.mkdir()
    log, _ = planted(users=60, items=60, length=12)
    word = ("river", "engine")
    rows = [f"u{u}\ti{item}\t{place}" for u in range(60) for place, item in enumerate(log.of(u)[0])]
    items = [f"i{item}\tName{item}\t{word[item % 2]} {word[item % 2]}" for item in range(60)]
    triples = [f"e{item}\tkind\t{word[item % 2]}" for item in range(60)]
    tables = {
        "inter": ["user_id:token\titem_id:token\ttimestamp:float", *rows],
        "item": ["item_id:token\tmovie_title:token_seq\toverview:token_seq", *items],
        "kg": ["head_id:token\trelation_id:token\ttail_id:token", *triples],
        "link": ["item_id:token\tentity_id:token", *(f"i{item}\te{item}" for item in range(60))],
    }
    for end, lines in tables.items():
        (folder / f"{folder.name}.{end}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_a_study_from_the_log_to_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_planted(tmp_path / "tiny")
    study = AblationConfig(
        "tiny", tmp_path / "out", tmp_path, seeds=1, text="hashed", encoders=(*UNTRAINED, "text only", "text + KG"),
        epochs=3, batch_users=16, history=10, table=tmp_path / "table.csv", progress=False,
    )  # fmt: skip
    lines = main(study)
    found = {(line.split, line.encoder, line.label): line.value.mean for line in lines}
    assert {split for split, _, _ in found} == {"all", "cold users", "cold items", "cold items, all ranked"}
    assert found["cold items", "text + KG", "NDCG@10"] > found["cold items", "popularity", "NDCG@10"] + 0.1
    assert ("all", "text + KG", "Recall@10 minus text only") in found
    text = (tmp_path / "table.csv").read_text()
    assert "--visits 1300000 --batch-users 16" in text, "the command names what defaults decided"
    assert len(text.splitlines()) == 1 + len(lines)

    ran: list[str] = []

    def run(unit: AblationUnitConfig, out: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
        ran.append(unit.name)
        raise KeyboardInterrupt

    monkeypatch.setattr(ablate_encoder, "run_unit", run)
    assert main(study) == lines
    assert ran == [], "everything is finished"
    with pytest.raises(KeyboardInterrupt):
        main(replace(study, epochs=2))
    assert ran == ["tiny-standard-popularity-0"], "other settings are other units"
    assert main(replace(study, encoders=("popularity",), arms=("cold",))) == lines, "all that is finished is pooled"
    with pytest.raises(RecloopError, match="no finished unit"):
        main(replace(study, pool_only=True, seeds=1, targets=3))


def test_what_cannot_be_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(RecloopError, match="did you mean 'KG only'"):
        AblationConfig("tiny", tmp_path, encoders=("KG onli",))
    with pytest.raises(RecloopError, match="--seeds 0"):
        AblationConfig("tiny", tmp_path, seeds=0)
