"""Logs as people have them become worlds whose cards say what is true of them."""

from pathlib import Path

import pytest

import recloop
from recloop.envs.build.pipeline import BuildConfig, build_world
from recloop.envs.evidence.replay import GateReport
from recloop.envs.evidence.verdict import Verdict
from recloop.envs.logs.schema import Times
from recloop.envs.users.fitted import FitConfig
from recloop.experiments.studies.own_logs import OwnLogsConfig, main
from tests.envs.build.test_build import QUICK


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("own logs")  # a path with a blank
    main(OwnLogsConfig(out, users=160))
    return out


@pytest.mark.slow
def test_slates_with_one_time_each_and_cut_sessions_keep_boredom_and_nobody_leaves(folder: Path) -> None:
    log = recloop.read(folder / "slates" / "slates.csv", items=folder / "slates" / "items.csv")
    assert log.times is Times.behavioural
    config = BuildConfig(slate_size=5, encoder=QUICK.encoder, users=FitConfig(epochs=6), members=1, use_cache=False)
    card = build_world(log, config).card
    assert any("Nobody is known to have left" in line for line in card.assumed)
    assert not any("entry times" in line for line in card.not_claimed)
    for facts in card.figures["gates"].values():
        gate = {(line.measure, line.policy): line for line in GateReport.of(facts).lines}
        assert gate["slates an episode", ""].verdict is Verdict.passed
        assert gate["slates an episode", ""].simulated == gate["slates an episode", ""].logged == 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "signals", "exposures", "triples"),
    [
        (("shop/events.csv", "shop/products.csv"), ["click", "cart", "purchase"], True, 400),
        (("mind", None), ["click"], True, 400),
        (("anime/rating.csv", "anime/anime.csv"), ["consume", "rating"], False, 400),
    ],
)
def test_a_log_of_any_kind_becomes_a_world(
    folder: Path, files: tuple[str, str | None], signals: list[str], exposures: bool, triples: int
) -> None:
    beside = {} if files[1] is None else {"items": folder / files[1]}
    log = recloop.read(folder / files[0], **beside)
    assert ([s.name for s in log.signals], log.has_exposures) == (signals, exposures)
    assert log.knowledge is not None
    assert len(log.knowledge.triples) == triples
    world = build_world(log, QUICK)
    assert world.card.figures["reading"]["notes"] == list(log.notes)
    assert world.training_simulator == "train"
