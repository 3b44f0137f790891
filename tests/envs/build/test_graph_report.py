from dataclasses import replace
from typing import cast

import pandas as pd
import pytest

from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.envs.build.encoders import EncoderConfig, Workshop, graph_knowledge, report_on_graph
from recloop.envs.build.stages import StageCache
from recloop.envs.logs.schema import Columns, LoggedBehavior
from recloop.envs.world.world import Card

SHOP = Workshop(0, "cpu", None, StageCache(None), progress=False)
CONFIG = EncoderConfig(kg="distmult", kg_dim=8, kg_epochs=60, kg_report=True)


@pytest.fixture
def log() -> LoggedBehavior:
    """Forty films by two directors who keep to one genre each; only what `graph_knowledge` reads."""
    films = [f"film {i:02d}" for i in range(40)]
    tails = [f"director {i % 2}" for i in range(40)] + [f"genre {i % 2}" for i in range(40)]
    graph = KnowledgeGraph.from_names(films * 2, ["by"] * 40 + ["of kind"] * 40, tails)
    items = pd.DataFrame({Columns.title: films, Columns.text: films, Columns.entity: films}, index=pd.Index(films))
    rows = pd.DataFrame({Columns.user: ["u"], Columns.item: films[:1]})
    return cast(LoggedBehavior, _Log(rows, items, graph))


class _Log:
    def __init__(self, interactions: pd.DataFrame, items: pd.DataFrame, knowledge: KnowledgeGraph) -> None:
        self.interactions, self.items, self.knowledge = interactions, items, knowledge


def test_the_card_says_how_good_the_graph_is(log: LoggedBehavior) -> None:
    report = report_on_graph(log, CONFIG, SHOP)
    assert report is not None
    assert report.held == (8, 80)
    assert report.mrr["tail"] > 0.5  # two directors and two genres among 44 entities
    card = report.on_card(Card(learned=("before",), figures={"users": 3}))
    assert card.learned == ("before", report.sentence)
    assert "on 8 of 80 triples held out, distmult has a filtered MRR of" in report.sentence
    assert card.figures["graph_mrr_tail"] == report.mrr["tail"]
    assert card.figures["users"] == 3
    assert set(card.figures) == {
        "users", "graph_mrr_head", "graph_mrr_tail", "graph_hits_at_10_head", "graph_hits_at_10_tail"
    }  # fmt: skip


def test_it_is_made_on_request_alone(log: LoggedBehavior) -> None:
    assert report_on_graph(log, replace(CONFIG, kg_report=False), SHOP) is None
    assert report_on_graph(log, replace(CONFIG, kg="none"), SHOP) is None


def test_none_reads_no_graph(log: LoggedBehavior) -> None:
    assert graph_knowledge(log, CONFIG, SHOP) is not None
    assert graph_knowledge(log, replace(CONFIG, kg="none"), SHOP) is None
