import pandas as pd
import torch

from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.envs.build.groups import MOST_GROUPS, item_groups
from recloop.envs.logs.schema import Columns, LoggedBehavior, Signal


def log_with(categories: list[object], knowledge: KnowledgeGraph | None = None) -> LoggedBehavior:
    ids = [f"i{n}" for n in range(len(categories))]
    items = pd.DataFrame(
        {Columns.title: ids, Columns.text: ids, Columns.category: categories, Columns.entity: ids},
        index=pd.Index(ids, name=Columns.item),
    )
    rows = pd.DataFrame({Columns.user: ["u"], Columns.item: ["i0"], "click": [1.0]})
    users = pd.DataFrame(index=pd.Index(["u"], name=Columns.user))
    return LoggedBehavior("log", rows, users, items, (Signal("click"),), knowledge=knowledge)


def test_categories_are_numbered_by_size_and_missing_ones_stand_apart():
    groups, names = item_groups(log_with(["a", "b", "b", None]), torch.zeros(5, 2))
    assert names == ("category",)
    assert groups[:, 0].tolist() == [1, 0, 0, 2, 2]


def test_small_groups_share_the_last():
    groups, _ = item_groups(log_with([f"c{n}" for n in range(MOST_GROUPS + 5)]), torch.zeros(MOST_GROUPS + 6, 2))
    assert int(groups[:-1].max()) == MOST_GROUPS - 1
    assert int(groups[-1, 0]) == MOST_GROUPS


def test_the_attribute_that_splits_the_items_is_found():
    heads = ["i0", "i1", "i2", "i3"] * 2
    relations = ["kind"] * 4 + ["maker"] * 4
    knowledge = KnowledgeGraph.from_names(heads, relations, ["film"] * 4 + ["Ann", "Ann", "Ben", "Ben"])
    groups, names = item_groups(log_with([None] * 4, knowledge), torch.zeros(5, 2))
    assert names == ("maker",)
    assert groups[0, 0] == groups[1, 0] != groups[2, 0] == groups[3, 0]


def test_nearness_finds_the_clusters():
    vectors = torch.cat([torch.zeros(20, 2), torch.ones(20, 2), torch.zeros(1, 2)]) + torch.arange(41)[:, None] * 1e-4
    groups, names = item_groups(log_with([None] * 40), vectors)
    assert names == ("nearness",)
    assert len(set(groups[:20, 0].tolist())) == 1
    assert groups[0, 0] != groups[20, 0]
