"""The study of language-model recommenders: rows it knows, and figures that are those of the policy alone."""

from pathlib import Path

import pytest

from recloop.agents.baselines.next_item import evaluate_next_item
from recloop.encoders.base.errors import RecloopError
from recloop.envs.truth.built_in import built_in_world
from recloop.experiments.studies.language_recommenders import LanguageStudyConfig, measured


def test_a_row_holds_what_the_policy_ranks() -> None:
    world = built_in_world()
    users = world.users.rows("evaluate").numpy()[:40]
    row = measured("popularity", world, users, LanguageStudyConfig(Path("nowhere")), seed=0)
    popular = world.catalogue.popularity
    found = evaluate_next_item(lambda history: popular.expand(len(history), -1), world.sequences, users)
    assert (row["policy"], row["users"], row["trained_parameters"]) == ("popularity", found.users, 0)
    assert row["ndcg_10"] == pytest.approx(found.ndcg, abs=1e-4)
    assert row["recall_10"] == pytest.approx(found.recall, abs=1e-4)


def test_rows_that_nobody_knows_are_refused_before_anything_is_fitted() -> None:
    with pytest.raises(RecloopError, match="unknown row 'ranker:lorra'; did you mean 'ranker:lora'"):
        LanguageStudyConfig(Path("nowhere"), rows=("ranker:lorra",))
